"""`export` from a registry: what it logs, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

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
