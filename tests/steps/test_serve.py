"""`serve` against a real registry: what is promoted is served, and what takes its place."""

import json
import signal
import subprocess
from contextlib import suppress

import pytest
import requests
from mlflow.tracking import MlflowClient

from tests.support.pipeline import COLUMNS, PROJECT, new_store, step_command, write_sample
from tests.support.services import free_port
from tests.support.waiting import wait

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """A store with two versions, the second in Production."""
    store = new_store(tmp_path_factory.mktemp("serve") / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    parameters = {"families": "bias,matrix_factorization", "beat_bias": False}
    command = step_command("main", folder=store.home, ratings="my.csv", **parameters, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True)
    return store


def test_the_champion_is_served_and_whoever_takes_its_place_even_by_a_copy(promoted):
    address = f"http://127.0.0.1:{(port := free_port())}"
    client: MlflowClient = promoted.client
    champion = client.get_model_version_by_alias("recsys", "champion").version
    other = "1" if champion == "2" else "2"

    def started(**environment: str) -> subprocess.Popen:
        command = step_command("serve", folder=promoted.home, port=port, workers=1, poll=0.2, max_loss=1)
        return subprocess.Popen(command, cwd=PROJECT, env=promoted.environment(**environment))

    def version() -> str:
        with suppress(requests.RequestException):
            answer = requests.get(f"{address}/version", timeout=60)
            return answer.text.strip() if answer.ok else ""
        return ""

    server = started()
    try:
        wait(lambda: version() == champion, "the champion")
        for alias in ("2", "1"):
            for number in ("1", "2"):
                stage = "Production" if number == alias else "None"
                client.transition_model_version_stage("recsys", number, stage)
            client.set_registered_model_alias("recsys", "champion", alias)
            wait(lambda alias=alias: version() == alias, "the change")
        client.set_registered_model_alias("recsys", "champion", other)
        wait(lambda: version() == other, "the change")
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    server = started(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    try:
        wait(lambda: version() == other, "the copy")
        wait(
            lambda: (
                "does not answer"
                in json.loads(requests.get(f"{address}/api/health/ready", timeout=60).text)["registry"]
            ),
            "the registry's absence in health",
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
