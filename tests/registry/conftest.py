from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from registry import versions
from tests.support.killed import KilledError
from tests.support.pipeline import VERSION_FACTS, VERSION_TAGS, Store, new_store


@pytest.fixture
def registry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty registry of its own, to which MLflow is connected."""
    store = new_store(tmp_path / "store", tmp_path_factory.getbasetemp())
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    return store


@pytest.fixture
def register(registry: Store):
    """Registers versions of logged models that hold nothing: a hundredth of a second each."""

    def register(count: int = 1, name: str = "recsys", **tags: str) -> list[versions.Version]:
        made = []
        for _ in range(count):
            run = registry.client.create_run("0")
            model = registry.client.create_logged_model("0", "recommender", source_run_id=run.info.run_id)
            told = versions.describe("bias", VERSION_FACTS, {"rmse": 0.9})
            made.append(versions.register(run.info.run_id, model.model_id, name, VERSION_TAGS | tags, told))
        return made

    return register


@pytest.fixture
def at_write(monkeypatch, request):
    """Runs some work and, before its n-th write (the module's WRITES), something else; says how many it made."""
    hooks = []

    def wrap(original):
        def wrapped(self, *arguments, **named):
            if hooks:
                hooks[0]()
            return original(self, *arguments, **named)

        return wrapped

    for name in request.module.WRITES:
        monkeypatch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))

    def at_write(moment, something, work):
        writes = []

        def hook():
            writes.append(1)
            if len(writes) == moment or moment is None:
                kept = hooks.pop()
                try:
                    something()
                finally:
                    hooks.append(kept)

        hooks.append(hook)
        try:
            work()
        except KilledError:
            pass
        finally:
            hooks.clear()
        return len(writes)

    return at_write
