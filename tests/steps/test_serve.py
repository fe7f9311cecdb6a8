"""`serve` against a real registry: what is promoted is served, what is broken is refused, and the copy on the disk."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import requests

from tests.support.pipeline import COLUMNS, PROJECT, Store, new_store, step_command, write_sample
from tests.support.services import free_port

pytestmark = pytest.mark.e2e
_HANG_SECONDS = 900  # a hundred times what a change takes; what goes wrong is told at once, not waited for


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """A store with two versions, one in Production."""
    store = new_store(tmp_path_factory.mktemp("serve") / "store", tmp_path_factory.getbasetemp())
    write_sample(store.home / "my.csv")
    parameters = {"families": "bias,matrix_factorization", "beat_bias": False}
    command = step_command("main", folder=store.home, ratings="my.csv", **parameters, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True)
    return store


class Serving:
    """The step as a process, and what it answers; a wait that fails shows what the server wrote."""

    def __init__(self, store: Store, **environment: str) -> None:
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        self.log = store.folder / "serve.log"
        command = step_command("serve", folder=store.home, port=port, workers=1, poll=0.2, max_loss=1)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, env=store.environment(**environment), stdout=log, stderr=subprocess.STDOUT
            )

    def json(self, path: str) -> dict:
        with suppress(requests.RequestException):
            return requests.get(f"{self.address}/{path}", timeout=60).json()
        return {}

    def health(self) -> dict:
        return self.json("api/health/ready")

    def wait(self, happened: Callable[[], object], what: str) -> None:
        limit = time.monotonic() + _HANG_SECONDS
        while not happened():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < limit, f"no {what}; health {self.health()}:\n{self.log.read_text()}"
            time.sleep(0.05)

    def wait_for(self, version: str) -> None:
        def serves() -> bool:
            health = self.health()
            assert version not in " ".join(health.get("refused", {})), f"{health}\n{self.log.read_text()}"
            return health.get("version") == version

        self.wait(serves, f"version {version}")


@contextmanager
def started(store: Store, **environment: str) -> Iterator[Serving]:
    serving = Serving(store, **environment)
    try:
        yield serving
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait() == 128 + signal.SIGTERM, serving.log.read_text()
    finally:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.wait()


def test_the_champion_is_served_and_whoever_takes_its_place_but_no_altered_one(promoted):
    client = promoted.client
    champion = str(client.get_model_version_by_alias("recsys", "champion").version)  # a number, by some stores
    other = "1" if champion == "2" else "2"
    with started(promoted) as serving:
        serving.wait_for(champion)
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
