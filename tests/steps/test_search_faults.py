"""Searches whose workers are killed or stopped: exactly the trials asked for, nothing lost, one winner."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.pipeline import COLUMNS, PROJECT, options, write_sample
from tests.support.waiting import wait

pytestmark = pytest.mark.e2e

# RECSYS_FAULTS=long kills as long and as much as the figures of docs/benchmarks.md were taken with.
LONG = os.environ.get("RECSYS_FAULTS") == "long"
WORKERS, TRIALS, SECONDS, KILLS = (4, 60, 1.0, 12) if LONG else (3, 24, 0.4, 2)

SLEEPS = """
import sys, time
import steps
from recsys.tuning.objective import TrialObjective

def measure(self, config, report, into):
    for step in range(1, 5):
        time.sleep(float(sys.argv[1]) / 4)
        report(step, config.damping)
        into.add(step, {"epoch_auc": config.damping})
    into.value, into.metrics = config.damping, {"auc": config.damping}
    return into

TrialObjective.measure = measure
from steps.support.entrypoint import run_step
from steps.tune import tune
run_step("tune", tune, sys.argv[2:])
"""


def surroundings(store, url: str) -> dict[str, object]:
    """What `subprocess` gives to a `tune` besides its command."""
    return {"cwd": PROJECT, "env": store.environment(RECSYS_STUDY_STORAGE=url), "stdin": subprocess.DEVNULL}


class Worker:
    """`tune` in a process of its own, whose trials only sleep."""

    def __init__(self, store, url: str, log: Path, seconds: float = SECONDS, **parameters: object) -> None:
        defaults = {"family": "bias", "study": "spring", "trials": TRIALS, "heartbeat": 1, "ratings": "my.csv"}
        given = options(folder=store.home, **{**defaults, **COLUMNS, **parameters})
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SLEEPS, str(seconds), *given],
                **surroundings(store, url),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.log.read_text()

    def is_at_work(self) -> bool:
        return self.process.poll() is None and "search 1 of study" in self.said() and "best of" not in self.said()


@contextmanager
def workers(store, url, folder):
    """A list of workers, to be filled by the function; whatever is left of them is ended."""
    started: list[Worker] = []

    def start(**changes) -> Worker:
        started.append(Worker(store, url, folder / f"worker-{len(started)}.log", **changes))
        return started[-1]

    try:
        yield started, start
    finally:
        for worker in started:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()


def said_by(started):
    """What all workers said."""
    return "\n".join(worker.said() for worker in started)


def states(path: Path) -> list[str]:
    """Of all trials in a file; Optuna itself would take longer to be asked again and again than the workers to work."""
    with sqlite3.connect(path) as database:
        return [state for (state,) in database.execute("select state from trials order by number")]


def trials_of(url):
    return optuna.load_study(study_name="spring", storage=url).trials


@pytest.fixture
def url(mariadb):
    return mariadb.new_database("faults")


@pytest.fixture
def ready(store):
    write_sample(store.home / "my.csv")
    return store


def test_workers_that_are_killed_and_a_database_that_restarts(ready, url, mariadb, tmp_path):
    chance = random.Random(5)
    with workers(ready, url, tmp_path) as (started, start):
        for _ in range(WORKERS):
            start()
        killed, restarted, last = 0, not mariadb.is_private, time.monotonic()

        def done() -> bool:
            nonlocal killed, restarted, last
            ended = sum(worker.said().count("\ntrial ") for worker in started)
            at_work = [worker for worker in started if worker.is_at_work()]
            if not restarted:  # before the first kill: a worker that starts waits for the database for seconds only
                if ended > TRIALS // 2 or (ended > 2 and len(at_work) == WORKERS):
                    mariadb.restart()
                    restarted = True
            elif at_work and killed < KILLS and ended > killed + 1 and time.monotonic() - last > (3 if LONG else 1):
                chance.choice(at_work).process.kill()
                start()
                killed, last = killed + 1, time.monotonic()
            return all(worker.process.poll() is not None for worker in started)

        wait(done, lambda: said_by(started))
        shown = said_by(started)
        assert Counter(worker.process.returncode for worker in started) == {-signal.SIGKILL: killed, 0: WORKERS}, shown
        assert restarted
        assert killed >= KILLS - 1
        assert shown.count("registered version") == 1
    check(ready, trials_of(url), shown)


def check(store, trials, shown):
    """Exactly what was asked for, once each; everything on record."""
    assert Counter(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)[True] == TRIALS, shown
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    lost = [trial for trial in trials if trial.state is TrialState.FAIL]
    retried = {
        trial.system_attrs["retry_history"][-1]: trial for trial in trials if "retry_history" in trial.system_attrs
    }
    for trial in lost:
        assert trial.params.items() <= retried[trial.number].params.items()
    runs = store.runs()
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    recorded = Counter(run.data.tags["trial"] for run in runs if "trial_state" in run.data.tags)
    assert recorded == {str(trial.number): 1 for trial in trials}
    assert store.run_named("study spring").info.status == "FINISHED"
    (version,) = store.client.search_model_versions("name = 'recsys'")
    best = max((trial for trial in trials if trial.state is TrialState.COMPLETE), key=lambda trial: trial.value)
    assert f", trial {best.number} of run " in version.tags["study"]
    assert [run.info.run_name for run in runs].count("train bias") == 1


def test_ctrl_c_lets_the_running_trial_end_and_leaves_what_can_be_gone_on_with(ready, tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    with workers(ready, url, tmp_path) as (started, start):
        worker = start(seconds=2, trials=2)
        wait(lambda: "search 1 of study spring: to 2" in worker.said(), lambda: said_by(started))
        wait(lambda: states(tmp_path / "studies.db")[0] == "RUNNING", lambda: said_by(started))
        worker.process.send_signal(signal.SIGINT)
        wait(lambda: worker.process.poll() is not None, lambda: said_by(started))
        assert worker.process.returncode == 130
        said = worker.said()
        assert "stopping after the running trial; once more to stop at once" in said
        assert "trial 0: validation AUC 5.0000" in said
        assert said.splitlines()[-1] == "tune: stopped by SIGINT"
        assert "Traceback" not in said
        assert [trial.state for trial in trials_of(url)] == [TrialState.COMPLETE]
        assert ready.run_named("study spring").info.status == "KILLED"
        assert ready.run_named("tune bias").info.status == "KILLED"

        # Twice stops at once, and what was cut off is tried again.
        worker = start(seconds=30, trials=2)
        wait(lambda: len(states(tmp_path / "studies.db")) == 2, lambda: said_by(started))
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(2.5)
        worker.process.send_signal(signal.SIGTERM)
        wait(lambda: worker.process.poll() is not None, lambda: said_by(started))
        assert worker.process.returncode == 143, worker.said()
        assert trials_of(url)[1].state is TrialState.FAIL

        worker = start(seconds=0.1, trials=2)
        wait(lambda: worker.process.poll() is not None, lambda: said_by(started))
        assert "best of 3 trials" in worker.said()
    trials = trials_of(url)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials[2].params == trials[1].params
    assert {run.info.status for run in ready.runs() if run.info.run_name.startswith(("study", "trial 0"))} == {
        "FINISHED"
    }


def below(process: int) -> list[int]:
    """The processes that one has started and that are there; none of one that is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def is_empty(group: int) -> bool:
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@contextmanager
def starter_of_two(store, url: str, folder: Path, trials: int):
    """`tune` with two workers: its process, the command, and the process that they are forked from."""
    given = {"family": "bias", "study": "spring", "trials": trials, "workers": 2, "heartbeat": 1, "ratings": "my.csv"}
    command = [sys.executable, "-m", "steps.tune", *options(folder=store.home, **given, **COLUMNS)]
    with (folder / "log").open("w") as log:
        starter = subprocess.Popen(command, **surroundings(store, url), stdout=log, stderr=log)

    def hosts() -> list[int]:
        return [child for child in below(starter.pid) if len(below(child)) == 2]

    try:
        wait(lambda: starter.poll() is not None or hosts(), "start")
        (host,) = hosts()
        yield starter, command, host
    finally:
        starter.kill()
        starter.wait()


def completed(file: Path) -> int:
    return states(file).count("COMPLETE") if file.exists() and file.stat().st_size else 0


def test_a_worker_and_then_the_one_that_started_them_are_killed(ready, tmp_path):
    """Of two workers the other one goes on, and none outlives the starter; the same line again finishes the search."""
    trials, file = 120, tmp_path / "studies.db"
    url = f"sqlite:///{file}"
    with starter_of_two(ready, url, tmp_path, trials) as (starter, command, host):
        first, second = below(host)
        assert os.getpgid(first) == os.getpgid(second) == host
        wait(lambda: completed(file) >= 1, "a trial")
        os.kill(first, signal.SIGKILL)
        wait(lambda: below(host) == [second], "its end")
        before = completed(file)
        wait(lambda: completed(file) > before, "a trial of the other one")
        assert starter.poll() is None
    wait(lambda: is_empty(host), "the end of all")
    assert completed(file) < trials

    again = subprocess.run(command, **surroundings(ready, url), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("registered version") == 1
    found = Counter(trial.state for trial in trials_of(url))
    assert found[TrialState.COMPLETE] + found[TrialState.PRUNED] == trials
    assert found.keys() <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert ready.run_named("study spring").info.status == "FINISHED"
    # The one that started the workers trains the winner, with all cores.
    tune, training = ready.run_named("tune bias"), ready.run_named("train bias")
    assert training.data.tags["worker"] == tune.data.tags["worker"]


def test_ctrl_c_with_two_workers_is_told_once(ready, tmp_path):
    file = tmp_path / "studies.db"
    with starter_of_two(ready, f"sqlite:///{file}", tmp_path, 400) as (starter, _, host):
        wait(lambda: completed(file) >= 1, "a trial")
        starter.send_signal(signal.SIGINT)
        wait(lambda: starter.poll() is not None, "its end")
        assert starter.returncode == 130
    wait(lambda: is_empty(host), "the end of all")
    said = (tmp_path / "log").read_text()
    assert said.count("stopping after the running trials; once more to stop at once") == 1
    assert said.count("tune: stopped by SIGINT") == 1
    assert "Traceback" not in said
    assert "RUNNING" not in states(file)
    assert ready.run_named("study spring").info.status == "KILLED"


def test_workers_that_are_all_killed_are_told_by_the_one_that_started_them(ready, tmp_path):
    file = tmp_path / "studies.db"
    with starter_of_two(ready, f"sqlite:///{file}", tmp_path, 400) as (starter, _, host):
        workers = below(host)
        wait(lambda: completed(file) >= 1, "a trial")
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        wait(lambda: starter.poll() is not None, "its end")
        assert starter.returncode == 1
    said = (tmp_path / "log").read_text()
    assert "all 2 workers ended before the search did (killed by SIGKILL, killed by SIGKILL)" in said
    assert "run the same line again to go on" in said
    assert "Traceback" not in said
    assert ready.run_named("tune bias").info.status == "FAILED"
