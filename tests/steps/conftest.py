import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import mlflow
import pytest

from steps.support.entrypoint import run_step
from tests.support.pipeline import Store, new_store, options, step_function, write_sample


class Stepper(Protocol):
    """Runs a step in this process, as its command line would."""

    def __call__(self, step: str, **parameters: object) -> None: ...


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all tests share."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def store(tmp_path: Path, shared: Path) -> Store:
    return new_store(tmp_path / "store", shared)


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Store:
    """A store for all tests of a module, with a sample of ratings in `home`."""
    store = new_store(tmp_path_factory.mktemp("module") / "store", shared)
    write_sample(store.home / "my.csv")
    return store


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Puts back what a step changes in its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    yield monkeypatch
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert mlflow.active_run() is None


def stepper(store: Store, monkeypatch: pytest.MonkeyPatch) -> Stepper:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("RECSYS_DATA", str(store.data))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    def run(step: str, **parameters: object) -> None:
        run_step(step, step_function(step), options(folder=store.home, **parameters))

    return run


@pytest.fixture
def step(store: Store, in_process: pytest.MonkeyPatch) -> Stepper:
    """Runs a step on the test's own store."""
    return stepper(store, in_process)


@pytest.fixture
def module_step(module_store: Store, in_process: pytest.MonkeyPatch) -> Stepper:
    """Runs a step on the module's store."""
    return stepper(module_store, in_process)
