"""Runs whose process is gone are ended by the next step of the machine, and nobody else's are touched."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import mlflow
import pytest

from recsys.runtime.processes import ProcessMark, parse_mark, start_of, this_process
from recsys.tracking import left_running
from recsys.tracking.left_running import HOST, PROCESS, SIGN, end_left_running, is_left, owner_tags
from steps.support import runs as support
from tests.support.pipeline import PROJECT, grid, write_csv
from tests.support.waiting import wait

HERE = this_process()
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def tags(host=HERE.host, kernel=HERE.kernel, pid=HERE.pid, started=HERE.started, silent=0.0):
    sign = (NOW - timedelta(seconds=silent)).isoformat()
    return {HOST: host, PROCESS: str(ProcessMark(host, kernel, pid, started)), SIGN: sign}


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (tags(), False),  # this very process
        (tags(started="1"), True),  # its number was given to another since
        (tags(pid=2**22 + 1), True),  # no such process
        (tags(pid=2**22 + 1, silent=0), True),
        (tags(silent=3600), False),  # stopped or asleep, and here
        (tags(host="elsewhere", pid=2**22 + 1, silent=3600), False),
        (tags(kernel="before-the-restart", silent=30), False),
        (tags(kernel="before-the-restart", silent=3600), True),
        (tags(kernel="", silent=3600), True),  # a system without /proc
        (tags(kernel="", silent=30), False),
        ({}, False),
        ({HOST: HERE.host, PROCESS: "gibberish", SIGN: "x"}, False),
        ({HOST: HERE.host, PROCESS: "k:1:1", SIGN: "gibberish"}, False),
    ],
)
def test_a_run_is_left_only_if_its_process_is_certainly_gone(found, left):
    assert is_left(found, HERE, NOW) is left


def test_a_mark_is_read_as_it_was_written():
    assert parse_mark(HERE.host, str(HERE)) == HERE
    assert start_of(os.getpid()) == HERE.started
    assert start_of(2**22 + 1) == ""


@pytest.fixture
def connected(store, in_process):
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    return store.client


@pytest.mark.process
def test_the_next_step_ends_what_a_killed_process_left(store, step, connected, capsys, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        alive = tags(pid=other.pid, started=start_of(other.pid))
        runs = {
            "killed": alive,
            "elsewhere": tags(host="elsewhere", pid=2**22 + 1),
            "foreign": {},
        }
        ids = {name: connected.create_run("0", tags=found).info.run_id for name, found in runs.items()}
        monkeypatch.setattr(support, "_end_left_running", support._end_left_running.__wrapped__)
        write_csv(store.home / "grid.csv", grid())
        step("prepare", ratings="grid.csv")
        assert {connected.get_run(found).info.status for found in ids.values()} == {"RUNNING"}
        assert "left RUNNING" not in capsys.readouterr().out
        other.kill()
    step("prepare", ratings="grid.csv")
    assert "note: 1 run was left RUNNING by processes that are gone; " in capsys.readouterr().out
    statuses = {name: connected.get_run(found).info.status for name, found in ids.items()}
    assert statuses == {"killed": "KILLED", "elsewhere": "RUNNING", "foreign": "RUNNING"}
    assert "found by a later step" in connected.get_run(ids["killed"]).data.tags["error"]
    assert end_left_running() == []


def test_a_run_that_goes_on_in_another_process_meanwhile_is_not_ended(connected, monkeypatch):
    run_id = connected.create_run("0", tags=tags(started="1")).info.run_id
    real = left_running.is_left

    def taken_over(*arguments):
        connected.set_tag(run_id, PROCESS, owner_tags()[PROCESS])
        return real(*arguments)

    monkeypatch.setattr(left_running, "is_left", taken_over)
    assert end_left_running() == []
    assert connected.get_run(run_id).info.status == "RUNNING"


def test_an_open_run_gives_signs_of_life(connected, monkeypatch):
    from recsys.tracking import runs

    monkeypatch.setattr(left_running, "_BETWEEN_SIGNS", 0.01)
    with runs.start_run("long") as run:
        first = connected.get_run(run.run_id).data.tags
        connected.set_tag(run.run_id, SIGN, "")
        wait(lambda: connected.get_run(run.run_id).data.tags[SIGN], "a sign of life")
    assert first[PROCESS] == str(HERE)


# A step that looks for its launcher only when the launcher is gone.
LATE = f"""
import os, pathlib, sys, time
sys.path.insert(0, {str(PROJECT)!r})
from steps.support.entrypoint import run_step
print("here", flush=True)
while os.getppid() == int(os.environ["RECSYS_LAUNCHER"]):
    time.sleep(0.01)
try:
    run_step("history", lambda parameters: time.sleep(3600), [], connected=False)
except SystemExit as end:
    pathlib.Path(sys.argv[1]).write_text(str(end.code))
"""
LAUNCH = """
import subprocess, sys
line = ["bash", "-c", 'RECSYS_LAUNCHER=$PPID exec "$0" "$@"', sys.executable, *sys.argv[1:]]
subprocess.Popen(line, stdout=subprocess.PIPE).stdout.readline()
"""


@pytest.mark.process
def test_a_step_whose_launcher_died_before_it_looked_ends(tmp_path):
    ended = tmp_path / "ended"
    environment = os.environ | {"MLFLOW_RUN_ID": "f" * 32}
    subprocess.run([sys.executable, "-c", LAUNCH, "-c", LATE, str(ended)], env=environment, check=True)
    wait(ended.exists, "the end of the step")
    wait(ended.read_text, "its status")
    assert ended.read_text() == "143"
