"""Where compiled loops are kept."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np
import pytest

import recsys
from recsys.runtime import compilation

COMPILES = """
import sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from loop import add_one
from recsys.runtime.compilation import compile_loop
print(sum(compile_loop(add_one, np.zeros(1)).stats.cache_hits.values()))
"""


@pytest.mark.process
@pytest.mark.parametrize("chosen", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_what_was_compiled_with_other_operations_on_lines_is_compiled_anew(tmp_path, chosen):
    (tmp_path / "loop.py").write_text("def add_one(numbers):\n    numbers[0] += 1\n", encoding="utf-8")
    shutil.copytree(Path(recsys.__file__).parent, tmp_path / "recsys", ignore=shutil.ignore_patterns("__pycache__"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}

    def hits() -> int:
        environment = kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), chosen: str(tmp_path / "cache")}
        command = [sys.executable, "-c", COMPILES, str(tmp_path)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
        return int(done.stdout)

    assert [hits(), hits()] == [0, 1]
    with (tmp_path / "recsys" / "runtime" / "lines.py").open("a", encoding="utf-8") as lines:
        lines.write("# changed\n")
    assert [hits(), hits()] == [0, 1]
    assert list((tmp_path / "cache").rglob("*.nbi"))


def add_one(numbers):
    numbers[0] += 1


def test_loops_of_other_releases_go_a_month_after_their_last_use(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    past = time.time() - 31 * 86_400
    for name in ("0123456789abcdef", "fedcba9876543210", "another_program_0123456789abcdef"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loop.nbi").touch()
        os.utime(tmp_path / name, (past, past))
    os.utime(tmp_path / "fedcba9876543210")
    compilation.compile_loop(add_one, np.zeros(1))
    kept = {"fedcba9876543210", "another_program_0123456789abcdef"}
    (ours,) = {path.name for path in tmp_path.iterdir()} - kept
    assert list((tmp_path / ours).rglob("*.nbc"))

    os.utime(tmp_path / ours, (past, past))
    compilation._folder.cache_clear()  # as in the next process
    compilation.compile_loop(add_one, np.zeros(1))
    assert (tmp_path / ours).stat().st_mtime > past + 86_400
    assert kept < {path.name for path in tmp_path.iterdir()}
