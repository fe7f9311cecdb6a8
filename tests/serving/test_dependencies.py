"""A loaded version needs little: no reader, no training, and only the files that were kept with it."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.serving.dependencies import find_dependencies
from recsys.training.trainer import train

SOURCE = Path(__file__).resolve().parents[2] / "src"
ROWS = [(f"u{u}", f"i{i}", 1 + (3 * u + i) % 5, 60 * i) for u in range(12) for i in range(12)]
LOADS = """
import json, sys
import numpy as np
from pathlib import Path
from recsys.models.base.loading import load_recommender
loaded = load_recommender(Path(sys.argv[1]))
users, items = np.array(["u1", "new"], object), np.array(["i3", "i3"], object)
rating = loaded.predict(users, items).rating.tolist()
packages = ("torch", "numba", "mlflow", "optuna")
modules = sorted(name for name in sys.modules if name.startswith("recsys.") or name in packages)
try:
    folded = loaded.fold_in(np.array(["new"] * 3, object), np.array(["i1", "i2", "i4"], object), np.array([5.0, 4, 5]))
    rating += folded.recommender.predict(users, items).rating.tolist()
except ValueError:
    pass
print(json.dumps([rating, modules]))
"""


def load(folder: Path, package: Path) -> tuple[list[float], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(folder)],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: tuple[list[float], list[str]] = json.loads(done.stdout)
    return answer


@pytest.mark.process
@pytest.mark.parametrize("family", family_names())
def test_the_files_kept_with_a_version_answer_like_the_whole_package(family, prepare_rows, tmp_path):
    config = family_module(family).Config
    small = {name: 2 for name in ("epochs", "samples", "n_estimators") if name in config.model_fields}
    train(family, prepare_rows(ROWS), config(**small), seed=1).final.save(tmp_path / "saved")
    needed = find_dependencies(["recsys.models.base.loading", f"recsys.models.{family}"])
    for below, path in needed.files.items():
        (tmp_path / "kept" / "recsys" / below).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / "kept" / "recsys" / below)

    whole, modules = load(tmp_path / "saved", SOURCE)
    kept, _ = load(tmp_path / "saved", tmp_path / "kept")

    np.testing.assert_array_equal(kept, whole)
    rooms = {name.split(".")[1] for name in modules if "." in name}
    assert not rooms & {"training", "tuning", "tracking", "evaluation", "diagnostics"}
    # skops imports torch
    heavy = {"numba", "mlflow", "optuna"} | ({"torch"} if family != "random_forest" else set())
    assert not [name for name in modules if "readers" in name or name in heavy]


def test_packages_are_those_that_the_files_import():
    bias = find_dependencies(["recsys.serving.pyfunc_model", "recsys.models.bias"]).distributions
    forest = find_dependencies(["recsys.serving.pyfunc_model", "recsys.models.random_forest"]).distributions
    assert {"mlflow", "numpy", "pandas", "pyarrow", "pydantic"} <= bias
    assert forest - bias == {"skops"}
    factors = find_dependencies(["recsys.serving.pyfunc_model", "recsys.models.matrix_factorization"]).distributions
    assert factors == bias
    assert not {"torch", "numba", "optuna", "matplotlib", "SQLAlchemy"} & forest


def test_the_owners_of_packages_are_those_that_the_standard_library_names():
    found = find_dependencies(["recsys.serving.pyfunc_model", *(f"recsys.models.{name}" for name in family_names())])
    named = packages_distributions()
    for package in ("numpy", "pandas", "mlflow", "sklearn", "skops", "pydantic", "scipy"):
        assert set(named[package]) <= found.distributions
