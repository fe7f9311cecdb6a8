"""Processes that are killed, stopped or fail while they train: the others notice, and the end is that of no failure."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from recsys import models
from recsys.errors import InputError, RankError
from recsys.models.base.family import family_module
from recsys.testing.datasets import prepared
from recsys.training import trainer
from recsys.training.launch import agent
from recsys.training.launch.agent_process import AgentProcess
from recsys.training.launch.heartbeat import read_statuses
from recsys.training.launch.job import JobSpec
from recsys.training.launch.launcher import Launcher
from recsys.training.launch.settings import Processes
from recsys.training.launch.workspace import has_state, open_workspace
from tests.support.services import free_port
from tests.support.waiting import wait

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
FAMILIES = PROJECT / "tests" / "support" / "families"
ROWS = [(f"u{u}", f"i{i}", 1 + (3 * u + i) % 5) for u in range(12) for i in range(12)]

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    """The family beside the tests is one here and in the ranks."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(FAMILIES)])


@pytest.fixture
def dataset(tmp_path):
    return prepared(tmp_path, ROWS)


class Together:
    """A training of the counting family on a dataset, and what it said."""

    def __init__(self, dataset, folder, *, settings=None, **config):
        self.dataset, self.folder, self.said = dataset, folder, []
        self.settings = Processes(**{"processes": 2, "checkpoint_minutes": 0, **(settings or {})})
        self.config = family_module("counting").Config(**config)
        self.spec = JobSpec("counting", self.config.model_dump(), 1, dataset.digest, True, "none")
        self.epochs = []
        self.figures = {}

    def run(self, on_epoch=lambda epoch: None):
        def report(epoch, metrics):
            self.epochs.append(epoch)
            on_epoch(epoch)

        environment = {**os.environ, "PYTHONPATH": str(FAMILIES.with_name("site"))}
        self.launcher = Launcher(
            self.folder,
            self.spec,
            self.settings,
            environment=environment,
            run_id="r1",
            say=self.said.append,
            on_ranks=lambda _, figures: self.figures.update(figures),
        )
        done = trainer.train(
            "counting", self.dataset, self.config, seed=1, report=report, fit_all=self.launcher.fit_all
        )
        return done.chosen.total, done.final.total

    def signal(self, rank, number):
        (status,) = [status for status in read_statuses(self.folder / "ranks") if status.rank == rank]
        os.kill(status.pid, number)

    def alone(self):
        """What the same training gives in one process."""
        done = trainer.train("counting", self.dataset, self.config, seed=1)
        return done.chosen.total, done.final.total


def gone(folder):
    """Whether no rank of the job and no agent of this process is left."""
    ranks = [json.loads(path.read_text())["pid"] for path in (folder / "ranks").glob("*.json")]
    agents = [child for child in psutil.Process().children() if agent.__name__ in child.cmdline()]
    return not agents and not any(map(psutil.pid_exists, ranks))


def test_a_rank_that_is_killed_and_one_that_hangs_change_nothing_but_the_time(dataset, tmp_path):
    trained = Together(dataset, tmp_path / "job", settings={"rank_timeout": 6}, pause=0.2)
    faults = {2: signal.SIGKILL, 3: signal.SIGSTOP}  # after a checkpoint
    ended = trained.run(lambda epoch: epoch in faults and trained.signal(1, faults[epoch]))
    assert ended == trained.alone()
    assert trained.epochs == [1, 2, 3, 4]
    said = "\n".join(trained.said)
    # The agent names the process it saw end first, which may be the other one, whose messages nobody took.
    assert re.search(r"restart 1 of 3: rank (1 of 2 was ended by SIGKILL|0 of 2 lost the others \(.*\))\n", said)
    at, others = map(
        int, re.search(r"rank 1 of 2 did not answer for 6 s: at step (\d+), others wait at (\d+);", said).groups()
    )
    assert at <= others <= at + 1
    assert "restart 2 of 3: rank 1 of 2 did not answer for 6 s: at step" in said
    assert said.count("goes on from checkpoint") == 2
    figures = trained.launcher.figures()
    assert figures["restarts"] == 2
    assert figures["checkpoints"] >= 6  # four in each fit, less those that a fault kept rank 0 from telling of
    assert figures["bytes_exchanged"] > 0
    assert {"rank_0_rows_per_second", "rank_1_rows_per_second"} <= trained.figures.keys()
    assert gone(trained.folder)


def test_an_exception_of_a_rank_is_what_is_told(dataset, tmp_path):
    trained = Together(dataset, tmp_path / "job", settings={"processes": 1, "restarts": 0}, fault="raise")
    with pytest.raises(RankError) as caught:
        trained.run()
    assert str(caught.value) == (
        "rank 0 of 1: ValueError: the tray is empty; the same line with -P resume=auto goes on from the last checkpoint"
    )
    assert 'raise ValueError("the tray is empty")' in trained.launcher.log()


def test_ranks_with_different_data_are_refused_at_once_and_both_are_named(dataset, tmp_path):
    (tmp_path / "other").mkdir()
    other = prepared(tmp_path / "other", [*ROWS[1:], ("u0", "i0", 5)])
    address = f"127.0.0.1:{free_port()}"
    settings = {"processes": 1, "nodes": 2, "rendezvous": address}
    both = [Together(data, tmp_path / f"job-{n}", settings=settings) for n, data in enumerate((dataset, other))]

    def refusal(trained):
        with pytest.raises(InputError) as caught:
            trained.run()
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(refusal, both))
    assert messages[0] == messages[1]
    assert messages[0].startswith("all ranks need the same data, but rank 0 on ")
    digests = [json.loads((t.folder / "job.json").read_text())["rows_digest"] for t in both]
    assert digests[0] != digests[1]
    assert all(digest in messages[0] for digest in digests)
    assert all(gone(trained.folder) for trained in both)


def test_ranks_that_begin_as_programs_of_their_own_do_likewise(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "__name__", "agent_with_gpu")  # beside the tests
    trained = Together(dataset, tmp_path / "job", pause=0.2)
    assert trained.run(lambda epoch: epoch == 2 and trained.signal(1, signal.SIGKILL)) == trained.alone()
    assert trained.launcher.figures()["restarts"] == 1
    assert gone(trained.folder)


def test_an_agent_that_is_not_needed_is_gone_before_it_has_imported_anything():
    with AgentProcess("counting", 2, {**os.environ, "PYTHONPATH": str(FAMILIES.with_name("site"))}) as process:
        assert process.wait(0) is None
    assert process.wait(0) == -signal.SIGTERM


def test_an_agent_ends_by_itself_where_whoever_began_it_is_killed():
    script = f"""
import os, signal
from recsys.training.launch.agent_process import AgentProcess
process = AgentProcess("counting", 2, {{**os.environ, "PYTHONPATH": {str(FAMILIES.with_name("site"))!r}}})
print(process._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as begun:
        pid = int(begun.stdout.readline())
        assert begun.wait() == -signal.SIGKILL
    wait(lambda: not psutil.pid_exists(pid), "the agent's end")


KILLED = """
import sys
sys.path[:0] = {path!r}
import test_launcher
from recsys import models
from recsys.data.dataset import load_dataset
from pathlib import Path
models.__path__.append({families!r})
dataset = load_dataset({digest!r}, Path({prepared!r}))
test_launcher.Together(dataset, Path({folder!r}), settings={{"processes": 1}}, pause=0.2).run()
"""


def lose(dataset, folder):
    """Begin a training whose process is killed after its first checkpoint, and wait until nobody is left of it."""
    script = KILLED.format(
        path=[str(HERE), str(PROJECT / "src"), str(PROJECT)],
        families=str(FAMILIES),
        digest=dataset.digest,
        prepared=str(dataset.folder.parent),
        folder=str(folder),
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait(lambda: has_state(folder) or process.poll() is not None, "a checkpoint")
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert len(family) == 2  # the agent and a rank
    wait(lambda: not any(one.is_running() for one in family), "the end of both")


def test_a_training_whose_every_process_is_lost_goes_on_later(dataset, tmp_path):
    said = []

    def place(resume):
        return open_workspace(tmp_path, "job", resume=resume, several_machines=False, say=said.append)

    with contextlib.suppress(RankError), place(False) as first:
        first.record_run("r1")
        lose(dataset, first.folder)
        raise RankError
    assert not list(first.folder.glob("fit-*/rows"))

    trained = Together(dataset, first.folder, settings={"processes": 1, "resume": "auto"}, pause=0)
    trained.spec = JobSpec("counting", {**trained.spec.config, "pause": 0.2}, 1, dataset.digest, True, "none")
    with place(True) as second:
        assert second.interrupted_run == "r1"
        assert trained.run() == trained.alone()
    assert trained.launcher.resumed == 1
    assert trained.epochs == [1, 2, 3, 4]
    assert not second.folder.exists()
