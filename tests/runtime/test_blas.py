"""Threads of linear algebra."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import recsys

# SciPy brings a library of its own once NumPy's is known.
BLOCKS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy
from threadpoolctl import ThreadpoolController
from recsys.runtime.blas import one_thread

def threads():
    return [found["num_threads"] for found in ThreadpoolController().info() if found["user_api"] == "blas"]

seen = []
for again in range(3):
    ThreadpoolController().limit(limits=2, user_api="blas")
    with one_thread():
        seen.append(threads())
    seen.append(threads())
    if again == 1:
        import scipy.linalg
print(json.dumps(seen))
"""


@pytest.mark.process
def test_all_libraries_have_one_thread_within_the_block_and_as_many_as_before_behind_it():
    source = str(Path(recsys.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", BLOCKS, source], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[1], [2], [1], [2], [1, 1], [2, 2]]
