"""Steps that are stopped or killed: nobody is left behind, and the run says how it ended."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.support.pipeline import COLUMNS, PROJECT, Store, mlflow_command, new_store, step_command, write_sample
from tests.support.waiting import wait

pytestmark = pytest.mark.e2e

# Minutes of work, begun as soon as the dataset is recorded
LONG = {"family": "random_forest", "n_estimators": 10_000, "max_depth": "none", "min_samples_leaf": 1}
RUN = "train random_forest"


@pytest.fixture
def busy(tmp_path, shared) -> Store:
    """A store in which training can begin at once: the dataset is prepared."""
    store = new_store(tmp_path / "store", shared)
    write_sample(store.home / "my.csv", users=400, items=150)
    return store


@contextlib.contextmanager
def started(store: Store, command: list[str]) -> Iterator[subprocess.Popen]:
    """A process of its own process group, like a shell's job; whatever is left of it is ended afterwards."""
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=store.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until_training(store: Store, process: subprocess.Popen) -> None:
    """Wait until the forest grows: its dataset is on record."""

    def training() -> bool:
        assert process.poll() is None, process.stdout.read()
        if (RUN, "RUNNING") not in store.statuses():
            return False
        return bool(store.run_named(RUN).inputs.dataset_inputs)

    wait(training, "the training")


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The process and all below it, parents before their children."""
    top = psutil.Process(process.pid)
    return [top, *top.children(recursive=True)]


def step_below(process: subprocess.Popen) -> psutil.Process:
    """The step that `mlflow run` started; a program that it starts itself has its command line for a moment."""
    for child in family_of(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "steps.train" in child.cmdline():
                return child
    raise AssertionError("no step below mlflow run")


def statuses(store: Store) -> dict[str, str]:
    return {str(run.info.run_name): run.info.status for run in store.runs()}


def nothing_registered(store: Store) -> bool:
    return not store.client.search_registered_models() and not store.client.search_logged_models(store.experiments)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_step_that_is_told_to_stop(number, status, busy):
    command = step_command("train", ratings="my.csv", folder=busy.home, **LONG, **COLUMNS)
    with started(busy, command) as process:
        wait_until_training(busy, process)
        family = family_of(process)
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == status, said
    assert said.splitlines()[-1] == f"train: stopped by {number.name}"
    assert "Traceback" not in said
    assert statuses(busy) == {"prepare my.csv": "FINISHED", RUN: "KILLED"}
    assert not [left for left in family if left.is_running()]
    assert nothing_registered(busy)


def test_ctrl_c_of_mlflow_run(busy):
    """A terminal sends it to `mlflow run` and to the step."""
    with started(busy, mlflow_command(".", "train", ratings=busy.home / "my.csv", **LONG, **COLUMNS)) as process:
        wait_until_training(busy, process)
        family = family_of(process)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
        assert process.returncode != 0
        wait(lambda: not [left for left in family if left.is_running()], "the end of the step")
    assert statuses(busy)[RUN] in ("KILLED", "FAILED")
    assert nothing_registered(busy)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_does_not_outlive_its_mlflow_run(number, busy):
    with started(busy, mlflow_command(".", "train", ratings=busy.home / "my.csv", **LONG, **COLUMNS)) as process:
        wait_until_training(busy, process)
        step = step_below(process)
        process.send_signal(number)
        process.wait()
        wait(lambda: not step.is_running() or step.status() == psutil.STATUS_ZOMBIE, "the end of the step")
    assert statuses(busy)[RUN] in ("KILLED", "FAILED")
    assert nothing_registered(busy)


def test_a_step_that_is_killed_fails_its_run(busy):
    with started(busy, mlflow_command(".", "train", ratings=busy.home / "my.csv", **LONG, **COLUMNS)) as process:
        wait_until_training(busy, process)
        step = step_below(process)
        step.kill()
        process.communicate()
        assert process.returncode != 0
        assert not step.is_running()
    assert statuses(busy)[RUN] == "FAILED"
    assert nothing_registered(busy)


def test_main_that_is_told_to_stop_ends_all_its_runs(busy):
    command = step_command("main", ratings="my.csv", folder=busy.home, families="random_forest,bias", **COLUMNS)
    with started(busy, command) as process:
        wait(lambda: (RUN, "RUNNING") in busy.statuses() or process.poll() is not None, "the training")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == 143, said
    assert statuses(busy) == {"prepare my.csv": "FINISHED", RUN: "KILLED", "main": "KILLED"}
