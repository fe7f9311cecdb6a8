"""materialize, and a forest that learns from what it wrote."""

import json
import sys

import numpy as np
import pytest

from recsys.testing.datasets import rated, write_rows
from steps.support.parameters import ServeParameters

SPARE = {"lists": False, "forward": False}


@pytest.fixture
def ratings(store):
    rows = [(*row, 1_600_000_000 + number % 50) for number, row in enumerate(rated(40, 30, 1, 5, step=0.5))]
    return write_rows(store.home / "my.csv", rows)


def test_a_forest_from_the_feature_store_goes_to_production(step, store, ratings, capsys):
    pytest.importorskip("feast", reason="pip install -r src/recsys/feature_store/requirements.txt")
    step("train", ratings="my.csv", family="bias", **SPARE)
    step("materialize")
    said = capsys.readouterr().out
    assert "40 users and 30 items, each value read back as it was written" in said
    run = store.run_named("materialize")
    assert run.data.metrics == {"users": 40.0, "items": 30.0}
    forest = {"family": "random_forest", "n_estimators": 5, "feature_store": "feature_store"}
    step("train", ratings="my.csv", **forest, lists=False)
    assert "the feature store knows them already" in capsys.readouterr().out
    step("promote", beat_bias=False, max_rmse=4, version=2)
    assert "version 2 (random_forest) goes to Production" in capsys.readouterr().out
    check_that_it_is_served_from_the_store(store, capsys)


def check_that_it_is_served_from_the_store(store, capsys):
    """By what `serve` does to a champion, and by what a worker then does."""
    from recsys.serving.scores import _score
    from recsys.serving.service import POINTER, Service
    from recsys.serving.settings import ServingSettings
    from registry import integrity, transitions
    from steps.serve import _feature_store, _Registry

    parameters = ServeParameters(folder=str(store.home), feature_store="feature_store", items="none", max_loss=1)
    registry, folder = _Registry(parameters), store.folder / "serving"
    champion = registry.find()
    registry.make(champion, folder / champion.key)
    assert "version 2 scores by the feature store's newest values" in capsys.readouterr().out
    (folder / POINTER).write_text(json.dumps({"form": champion.key}))
    service = Service(ServingSettings(folder=str(folder), feature_store=_feature_store(parameters)))
    try:
        service.follow()
        version = integrity.load_version(transitions.read_state("recsys").find(2))
        pairs = [(f"u{user}", f"i{item}") for user in range(10) for item in range(10)]
        expected = version.predict(*(np.array(side, object) for side in zip(*pairs, strict=True)))
        for one, other in zip(expected, _score(service, service.current(), pairs), strict=True):
            assert one.tolist() == other.tolist()
    finally:
        service.close()


def test_without_feast_a_sentence_says_what_to_install(step, ratings, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("recsys.feature_store")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "feast", None)
    with pytest.raises(SystemExit):
        step("materialize")
    said = capsys.readouterr().err
    assert "feast is needed, which is not installed; pip install -r src/recsys/feature_store/requirements.txt" in said


def test_a_dataset_of_another_engine_is_trained_from(step, store, tmp_path, ratings, capsys):
    """By the contract of docs/your-data.md: here the tables of prepare, sealed by the kit."""
    from recsys.testing import dataset as kit

    step("prepare", ratings="my.csv")
    (made,) = (store.data / "prepared").iterdir()
    written = made.rename(store.home / "written")
    (written / "manifest.json").unlink()
    kit.main([str(written), "--seal", "--ratings=warehouse"])
    capsys.readouterr()
    step("train", ratings="written", family="bias", **SPARE)
    step("promote", beat_bias=False, max_rmse=4)
    assert "goes to Production" in capsys.readouterr().out
    (taken,) = (store.data / "prepared").iterdir()
    assert store.client.get_model_version("recsys", "1").tags["data_version"] == taken.name
    assert (written / "manifest.json").exists()
    (written / "test" / "part-00000.parquet").unlink()
    with pytest.raises(SystemExit):
        step("prepare", ratings="written")
    assert "test/part-00000.parquet is missing" in capsys.readouterr().err
