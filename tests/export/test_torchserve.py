"""An archive that TorchServe serves: two versions, by token, with the answers of the versions themselves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from registry import integrity, versions
from tests.support.pipeline import COLUMNS, new_store, restored, stepper, write_sample
from tests.support.services import free_port
from tests.support.waiting import wait

pytestmark = pytest.mark.e2e

USERS = ["größe 000", "größe 001", "nobody"]


@dataclass(frozen=True)
class Server:
    """TorchServe under way."""

    inference: str
    metrics: str
    keys: dict[str, Any]
    answers: dict[int, Any]

    def ask(self, body: object, version: int = 1, key: str | None = None) -> requests.Response:
        token = self.keys["inference"]["key"] if key is None else key
        return requests.post(
            f"{self.inference}/predictions/recsys/{version}",
            data=json.dumps(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """TorchServe over two versions that were trained and exported here."""
    if not shutil.which("java"):
        pytest.skip("Java 17 is not installed; apt-get install openjdk-17-jre-headless")
    folder = tmp_path_factory.mktemp("torchserve")
    store = new_store(folder / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    with pytest.MonkeyPatch.context() as patch, restored(patch):
        step = stepper(store.home, patch, MLFLOW_TRACKING_URI=store.uri, RECSYS_DATA=str(store.data))
        for threshold in (3, 4):
            step("train", family="bias", ratings="my.csv", like_threshold=threshold, forward="false", **COLUMNS)
        answers = {}
        for number in (1, 2):
            step("export", version=number, format="torchserve", output=str(folder / "models"))
            recommender = integrity.load_version(versions.find_or_raise_version("recsys", number))
            users = np.array(USERS, object)
            answers[number] = (
                recommender.predict(users, np.array(["SKU-1"] * 3, object)),
                recommender.recommend(users, 5),
            )
    with started(folder) as (inference, metrics):
        keys = json.loads((folder / "key_file.json").read_text(encoding="utf-8"))
        yield Server(inference, metrics, keys, answers)


@contextmanager
def started(folder: Path) -> Iterator[tuple[str, str]]:
    """TorchServe with one worker a version; its processes are gone afterwards."""
    ports = [free_port() for _ in range(3)]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    (folder / "ts.properties").write_text(
        "".join(
            f"{name}={value}\n"
            for name, value in {
                "inference_address": addresses[0],
                "management_address": addresses[1],
                "metrics_address": addresses[2],
                "default_workers_per_model": 1,
                "default_response_timeout": 1800,  # also of loading, on a slow machine
                "token_expiration_min": 60 * 24,
                "disable_system_metrics": "true",
                "metrics_mode": "prometheus",
                "install_py_dep_per_model": "false",
            }.items()
        ),
        encoding="utf-8",
    )
    archives = [f"recsys-{number}.mar" for number in (1, 2)]
    command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots"]
    command += ["--ts-config", str(folder / "ts.properties"), "--model-store", str(folder / "models")]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {
        "TEMP": str(folder),
        "TS_WORKER_LOG": "",
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
    }
    environment["PYTHONPATH"] = ""  # what a worker imports of ours travels in the archive
    with (folder / "torchserve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--models", *archives],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait(lambda: is_up(addresses[0], folder / "key_file.json", process), "TorchServe answers for both versions")
        yield addresses[0], addresses[2]
    finally:
        begun = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        wait(lambda: all(ended(child) for child in begun), "TorchServe's processes end")


def ended(process: psutil.Process) -> bool:
    """Whether it is gone, or only its entry is left, which nobody here can take away."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def is_up(address: str, keys: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether all workers have loaded their version; without a token it does not say."""
    assert process.poll() is None, "TorchServe ended; see torchserve.log"
    if not keys.exists():
        return False
    try:
        token = json.loads(keys.read_text(encoding="utf-8"))["inference"]["key"]
        answer = requests.get(f"{address}/ping", headers={"Authorization": f"Bearer {token}"})
        return answer.json()["status"] == "Healthy"
    except (requests.RequestException, ValueError, KeyError):
        return False


def test_a_request_without_the_right_token_is_refused(server):
    assert server.ask({"user_id": USERS}, key="wrong").status_code == 400
    assert "token" in server.ask({"user_id": USERS}, key="wrong").text.lower()


@pytest.mark.parametrize("version", [1, 2])
def test_scores_are_the_version_s_to_1e_5(server, version):
    answer = server.ask({"user_id": USERS, "item_id": ["SKU-1"] * 3}, version)
    assert answer.status_code == 200, answer.text
    (rating, like), _ = server.answers[version]
    assert [row["rating"] for row in answer.json()] == pytest.approx(rating.tolist(), abs=1e-5)
    assert [row["like_probability"] for row in answer.json()] == pytest.approx(like.tolist(), abs=1e-5)


def test_the_two_versions_answer_differently(server):
    (_, first), (_, second) = server.answers[1][0], server.answers[2][0]
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("version", [1, 2])
def test_lists_are_the_version_s(server, version):
    answer = server.ask({"user_id": USERS, "n": 5}, version)
    assert answer.status_code == 200, answer.text
    _, lists = server.answers[version]
    for row, items, scores in zip(answer.json(), lists.items, lists.scores, strict=True):
        assert row["items"] == items.tolist()
        assert row["scores"] == pytest.approx(scores.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "said"),
    [([1, 2], "a JSON object"), ({"item_id": ["SKU-1"]}, "user_id"), ({"user_id": [None]}, "an id (text or integer)")],
)
def test_a_wrong_request_is_told_what_is_wrong(server, body, said):
    answer = server.ask(body)
    assert answer.status_code == 400
    assert said in answer.text


def test_metrics_count_requests_of_each_version(server):
    assert server.ask({"user_id": USERS, "n": 5}, 2).status_code == 200
    text = requests.get(f"{server.metrics}/metrics").text
    assert 'ts_inference_requests_total{model_name="recsys",model_version="2"' in text
