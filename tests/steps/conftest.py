from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pipeline import Store, new_store, restored, stepper, write_sample


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
    with restored(monkeypatch):
        yield monkeypatch


@pytest.fixture
def step(store: Store, in_process: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a step on the test's own store."""
    return stepper(store.home, in_process, MLFLOW_TRACKING_URI=store.uri, RECSYS_DATA=str(store.data))


@pytest.fixture
def module_step(module_store: Store, in_process: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a step on the module's store."""
    return stepper(
        module_store.home, in_process, MLFLOW_TRACKING_URI=module_store.uri, RECSYS_DATA=str(module_store.data)
    )
