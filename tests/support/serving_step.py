"""The step `serve` as a process on a store, and what it answers."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import requests

from tests.support.pipeline import PROJECT, Store, step_command
from tests.support.services import free_port

_HANG_SECONDS = 900  # a hundred times what a change takes; what goes wrong is told at once, not waited for


class Serving:
    """The step as a process, and what it answers; a wait that fails shows what the server wrote."""

    def __init__(self, store: Store, judge: str = "10s", **environment: str) -> None:
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        self.log = store.folder / "serve.log"
        command = step_command("serve", folder=store.home, port=port, workers=1, poll=0.2, max_loss=1, judge=judge)
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
def started(store: Store, judge: str = "10s", **environment: str) -> Iterator[Serving]:
    serving = Serving(store, judge, **environment)
    try:
        yield serving
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait() == 128 + signal.SIGTERM, serving.log.read_text()
    finally:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.wait()
