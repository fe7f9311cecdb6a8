"""`export` from a registry: what it logs, and what it refuses."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import yaml

from registry import transitions
from tests.support.kubernetes_schemas import check
from tests.support.pipeline import COLUMNS

pytestmark = pytest.mark.e2e


def test_a_version_is_exported_with_its_ids_and_says_so(module_store, module_step, capsys, tmp_path):
    module_step("train", family="bias", ratings="my.csv", **COLUMNS)
    module_step("export", version=1)
    told = capsys.readouterr().out
    assert "version 1 (bias) as ONNX: runs:/" in told
    assert "ratings a second by onnxruntime" in told
    run = module_store.run_named("export version 1")
    assert {"onnx/scores.onnx", "onnx/lists.onnx", "onnx/ids.json"} <= module_store.artifacts(run)
    assert run.data.metrics["onnx_rating_difference"] <= 1e-5
    tags = module_store.client.get_model_version("recsys", "1").tags
    assert tags["onnx"] == f"runs:/{run.info.run_id}/onnx"
    folder = module_store.client.download_artifacts(run.info.run_id, "onnx", str(tmp_path))
    ids = json.loads(Path(folder, "ids.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(f"{folder}/scores.onnx", providers=["CPUExecutionProvider"])
    rating, like = session.run(None, {"user": np.array([0, -1]), "item": np.array([ids["items"].index("SKU-1"), -1])})
    assert ids["users"][0] == "größe 000"
    assert ((rating >= 0.5) & (rating <= 5) & (like > 0) & (like < 1)).all()


@pytest.fixture
def trained(module_store, module_step):
    """A store with a version, and what runs steps on it."""
    if not module_store.client.search_registered_models():
        module_step("train", family="bias", ratings="my.csv", **COLUMNS)
    return module_step


def test_the_manifests_of_a_version_are_written_and_logged(trained, module_store, capsys):
    trained("export", version=1, format="kserve", namespace="team-a", tracking_uri="http://mlflow.mlops:5000")
    folder = module_store.home / "deployment" / "kubernetes"
    written = {str(path.relative_to(folder)): path for path in folder.rglob("*.yaml")}
    for path in written.values():
        check(yaml.safe_load(path.read_text(encoding="utf-8")))
    service = yaml.safe_load(written["base/inferenceservice.yaml"].read_text(encoding="utf-8"))
    assert service["spec"]["predictor"]["annotations"] == {"recsys/version": "1", "recsys/family": "bias"}
    run = module_store.run_named("export version 1")
    assert module_store.artifacts(run) == {f"kubernetes/{name}" for name in written}
    assert f"kubectl apply -k {folder}/overlays/development" in capsys.readouterr().out


def test_mlserver_is_given_the_files_of_the_version_and_where_they_are(trained, module_store):
    trained("export", version=1, format="mlserver")
    folder = module_store.home / "deployment" / "mlserver-1"
    settings = json.loads((folder / "model-settings.json").read_text(encoding="utf-8"))
    assert settings["implementation"] == "mlserver_mlflow.MLflowRuntime"
    assert settings["parameters"]["version"] == "1"
    assert (folder / settings["parameters"]["uri"] / "MLmodel").is_file()
    assert json.loads((folder / "settings.json").read_text(encoding="utf-8"))["host"] == "127.0.0.1"
    assert "mlserver-mlflow==" in (folder / "requirements.txt").read_text(encoding="utf-8")


def test_without_the_archiver_the_command_that_installs_it_is_told(trained, module_store, monkeypatch, capsys):
    for name in ("model_archiver", "model_archiver.model_archiver_config"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        trained("export", version=1, format="torchserve")
    assert "pip install -r src/recsys/export/torchserve-requirements.txt" in capsys.readouterr().err
    assert not list(module_store.home.rglob("*.mar"))


def test_without_onnx_runtime_the_command_that_installs_it_is_told_before_a_run(
    trained, module_store, monkeypatch, capsys
):
    before = len(module_store.runs())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit):
        trained("export", version=1)
    assert "ONNX needs onnxruntime, which is not installed; pip install -r src/recsys/export" in capsys.readouterr().err
    assert len(module_store.runs()) == before


def test_a_version_that_is_not_there_is_refused_before_anything_is_written(trained, module_store, capsys):
    with pytest.raises(SystemExit):
        trained("export", version=99, format="kserve", output="elsewhere")
    assert "99" in capsys.readouterr().err
    assert not (module_store.home / "elsewhere").exists()


@pytest.mark.parametrize(("share", "percent"), [("auto", 25), ("0.1", 10), ("none", None)])
def test_while_a_trial_runs_its_share_is_that_of_the_new_revision(trained, module_store, monkeypatch, share, percent):
    trial = SimpleNamespace(share=0.25)
    monkeypatch.setattr(transitions, "read_state", lambda _name: SimpleNamespace(champion=1, trial=trial))
    trained("export", format="kserve", share=share)
    written = module_store.home / "deployment" / "kubernetes" / "base" / "inferenceservice.yaml"
    predictor = yaml.safe_load(written.read_text(encoding="utf-8"))["spec"]["predictor"]
    assert predictor.get("canaryTrafficPercent") == percent
