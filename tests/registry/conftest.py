from pathlib import Path

import mlflow
import pytest
from pipeline import Store, new_store


@pytest.fixture
def registry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty registry of its own, to which MLflow is connected."""
    store = new_store(tmp_path / "store", tmp_path_factory.getbasetemp())
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    return store
