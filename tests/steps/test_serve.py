"""`serve` against a real registry: what is promoted is served, what is broken is refused, and the copy on the disk."""

import shutil
import subprocess

import numpy as np
import pytest
import requests

from tests.support.pipeline import COLUMNS, PROJECT, new_store, step_command, write_sample
from tests.support.serving_step import started

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """A store with two versions, one in Production."""
    store = new_store(tmp_path_factory.mktemp("serve") / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    parameters = {"families": "bias,matrix_factorization", "beat_bias": False}
    command = step_command("main", folder=store.home, ratings="my.csv", **parameters, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True)
    return store


def test_the_champion_is_served_and_whoever_takes_its_place_but_no_altered_one(promoted):
    client = promoted.client
    champion = str(client.get_model_version_by_alias("recsys", "champion").version)  # a number, by some stores
    other = "1" if champion == "2" else "2"
    with started(promoted) as serving:
        serving.wait_for(champion)
        asked = {"columns": [COLUMNS["user_column"], COLUMNS["item_column"]], "data": [["u1", "i1"]]}
        answer = requests.post(f"{serving.address}/invocations", json={"dataframe_split": asked}, timeout=600)
        assert list(answer.json()["predictions"][0]) == ["rating", "like_probability"]
        run = client.get_model_version("recsys", champion).run_id
        assert "version/served_form_r32.json" in {found.path for found in client.list_artifacts(run, "version")}
        client.set_registered_model_alias("recsys", "champion", other)
        serving.wait_for(other)
        client.set_registered_model_alias("recsys", "champion", champion)
        serving.wait_for(champion)

    # By a copy, where the registry is gone at start
    with started(promoted, MLFLOW_TRACKING_URI="http://127.0.0.1:9") as serving:
        serving.wait_for(champion)
        serving.wait(lambda: "does not answer" in serving.health().get("registry", ""), "word of the registry")

    # A version whose files were changed since it was evaluated
    path = next(promoted.folder.glob("artifacts/*/models/*/artifacts/artifacts/recommender/factors.npz"))
    with np.load(path) as found:
        arrays = {name: found[name] + (0.5 if name == "item_bias" else 0) for name in found}
    assert "item_bias" in arrays
    np.savez(path, **arrays)
    shutil.rmtree(promoted.home / "serving")
    client.set_registered_model_alias("recsys", "champion", "1")
    with started(promoted) as serving:
        serving.wait_for("1")
        client.set_registered_model_alias("recsys", "champion", "2")
        serving.wait(lambda: serving.health().get("refused"), "refusal of version 2")
        refused = serving.health()
    assert "version 2 is refused" in next(iter(refused["refused"].values()))
    assert "factors.npz was altered" in next(iter(refused["refused"].values()))
    assert refused["version"] == "1"
