"""The rules of tests/conftest.py: what a unit test may start, and what becomes of a skipped test in CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = """
import multiprocessing, subprocess, sys
import pytest

def test_nothing():
    pass

def test_asks_the_system():
    subprocess.run(["git", "--version"], check=True)

def test_starts_a_program():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_starts_a_process():
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()

def test_1_changes_the_path_of_imports():
    sys.path = ["/a/model's/code", *sys.path]

def test_2_finds_the_path_as_it_was():
    assert "/a/model's/code" not in sys.path

@pytest.mark.process
def test_starts_a_program_and_says_so():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_misses_a_program():
    pytest.skip("no such-program on PATH")

@pytest.fixture
def chromium():
    pytest.skip("no chromium on PATH")

def test_misses_a_browser(chromium):
    pass

@pytest.mark.stops_database
def test_stops_the_database():
    pass
"""


def outcomes(folder: Path, *arguments: str, **variables: str) -> tuple[dict[str, str], str]:
    """What became of each of the examples, and all that was said."""
    (folder / "test_examples.py").write_text(EXAMPLES, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(PROJECT)]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "RECSYS_TEST_MYSQL_URL")}
    done = subprocess.run(
        [*command, "-p", "tests.conftest", "-p", "no:cacheprovider", "-vv", *arguments, str(folder)],
        cwd=PROJECT,
        env={**kept, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'src'}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    found = dict(re.findall(r"::test_(\w+) (PASSED|FAILED|SKIPPED|ERROR)", said))
    assert (done.returncode == 0) == (not {"FAILED", "ERROR"} & set(found.values())), said
    return found, said


def test_a_unit_test_that_starts_a_process_fails_and_a_skipped_one_is_reported(tmp_path):
    found, said = outcomes(tmp_path)
    assert found == {
        "nothing": "PASSED",
        "asks_the_system": "PASSED",
        "starts_a_program": "FAILED",
        "starts_a_process": "FAILED",
        "1_changes_the_path_of_imports": "PASSED",
        "2_finds_the_path_as_it_was": "PASSED",
        "starts_a_program_and_says_so": "PASSED",
        "misses_a_program": "SKIPPED",
        "misses_a_browser": "SKIPPED",
        "stops_the_database": "PASSED",
    }
    assert f"a unit test started the program {sys.executable}: mark it `process`, or do without" in said


def test_in_ci_a_test_that_is_skipped_fails_the_run_and_says_what_is_missing(tmp_path):
    found, said = outcomes(tmp_path, "-k", "misses or nothing", CI="true")
    assert found == {"nothing": "PASSED", "misses_a_program": "FAILED", "misses_a_browser": "ERROR"}
    assert "in CI no test is skipped; install what is missing: no such-program on PATH" in said


def test_the_tier_of_the_units_leaves_out_what_is_marked_or_uses_a_fixture_of_a_higher_tier(tmp_path):
    found, _ = outcomes(tmp_path, "--tier", "unit", "-k", "not starts or says_so")
    assert set(found) == {
        "nothing",
        "asks_the_system",
        "1_changes_the_path_of_imports",
        "2_finds_the_path_as_it_was",
        "misses_a_program",
        "stops_the_database",
    }


def test_somebody_else_s_database_is_not_stopped(tmp_path):
    url = "mysql+pymysql://root@127.0.0.1:3306"
    found, _ = outcomes(tmp_path, "-k", "stops or nothing", RECSYS_TEST_MYSQL_URL=url)
    assert set(found) == {"nothing"}
