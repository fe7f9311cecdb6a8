"""Versions registered by the release before the package had rooms are loaded by this one's code."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

PROJECT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("versions_before_rooms.zip")
FAMILIES = ("bias", "bayesian_mf", "matrix_factorization", "random_forest")
LOADS = """
import json, sys
import recsys
import mlflow, pandas as pd
table = pd.DataFrame({"user_id": ["u0", "u3", "nobody"], "item_id": ["i1", "i9", "i1"],
                      "timestamp": [1_600_000_000.0, 1_600_260_000.0, None]})
answers = {}
for family in sys.argv[2:]:
    model = mlflow.pyfunc.load_model(f"{sys.argv[1]}/{family}")
    answers[family] = model.predict(table).to_dict("list")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    with zipfile.ZipFile(STORED) as file:
        file.extractall(folder)
    for family in FAMILIES:
        (folder / family / "code").mkdir()  # that release's code: what this process has imported goes first
    return folder


def test_earlier_versions_answer_as_they_did(versions: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(versions), *FAMILIES],
        env={"PYTHONPATH": str(PROJECT / "src"), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for family, expected in json.loads((versions / "answers.json").read_text(encoding="utf-8")).items():
        for column, values in expected.items():
            assert answers[family][column] == pytest.approx(values, rel=1e-6), (family, column)
