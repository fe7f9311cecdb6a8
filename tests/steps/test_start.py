"""What a step imports, and when: a library takes a second to import that a training of a second does not need."""

import json
import subprocess
import sys

import pytest

from tests.support.pipeline import COLUMNS, PROJECT, options, write_sample

TRAINS = """
import atexit, json, sys
import importlib_metadata
from recsys.data import builder
from steps.support.entrypoint import run_step
from steps.train import train

seen = {}

def look(moment):
    seen[moment] = sorted({name for module in sys.modules for name in (module, module.partition(".")[0])})

def noted(function, name):
    def called(*arguments, **named):
        look(name)
        return function(*arguments, **named)
    return called

builder.read_ratings = noted(builder.read_ratings, "reading")
importlib_metadata.packages_distributions = noted(importlib_metadata.packages_distributions, "search")
run_step("train", train, sys.argv[1:])
look("end")
print(json.dumps(seen))
"""
READING = {"torch", "numba", "sklearn", "matplotlib", "optuna", "skops", "scipy.stats", "jinja2"}
TRAINING = {"torch", "sklearn.ensemble", "matplotlib.pyplot", "optuna", "skops", "jinja2", "onnx", "evidently", "feast"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    "settings",
    [{"family": "matrix_factorization", "epochs": 2}, {"family": "bayesian_mf", "samples": 2}],
    ids=lambda settings: settings["family"],
)
def test_a_training_of_numpy_imports_no_library_of_others(settings, store):
    write_sample(store.home / "my.csv")
    given = options(**settings, ratings="my.csv", folder=store.home, **COLUMNS)
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, *given],
        cwd=PROJECT,
        env=store.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert not READING & set(seen["reading"])  # before the first row is read
    assert not TRAINING & set(seen["end"])
    assert "search" not in seen  # of the modules of all installed packages, for the requirements of the model
