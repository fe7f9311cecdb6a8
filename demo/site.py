"""Where the demonstration happens: a folder of its own with store, data and server; nothing else is touched."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

JUDGED = "trial.json"  # as recsys.serving.trial_page names what the judge writes
PROJECT = Path(__file__).resolve().parent.parent
MODEL = "demo"
_WAIT_SECONDS = 300.0  # for what takes seconds: a machine may be busy


class Site:
    """A folder, and the server over it."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Take an empty folder."""
        self.folder = folder
        self.port = port or _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.log = folder / "server.log"

    def enter(self) -> None:
        """Have this process, and what it starts, keep everything in the folder."""
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "RECSYS_"))]:
            del os.environ[name]
        os.chdir(self.folder)  # artifacts go below it
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder / 'mlflow.db'}"
        os.environ["RECSYS_DATA"] = str(self.folder / "data")
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

    @property
    def address(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, slow: str) -> None:
        """Start `serve`.

        Args:
            slow: which version is slow, by how many seconds and in one list of how many, such as 4:0.5:10.
        """
        path = os.pathsep.join([str(PROJECT / "demo" / "faults"), str(PROJECT / "src")])
        given = {"folder": self.folder, "model_name": MODEL, "port": self.port, "poll": 0.5, "judge": "0.3s"}
        command = [sys.executable, "-m", "steps.serve", *(f"--{name}={value}" for name, value in given.items())]
        with self.log.open("w") as log:
            self._server = subprocess.Popen(
                [*command, "--items=none", "--max_loss=1"],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": path, "DEMO_SLOW": slow},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def wait_for(self, version: int) -> None:
        """Wait until the server answers by a version; raises RuntimeError with its log if it does not."""
        limit = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < limit:
            if self._server is None or self._server.poll() is not None:
                break
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/version", timeout=10) as answer:
                if answer.read().decode().strip() == str(version):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server does not answer by version {version}:\n{self.log.read_text()[-3000:]}")

    def judged(self) -> float:
        """When the judge of the server looked last, in seconds since 1970."""
        path = self.folder / "serving" / MODEL / JUDGED
        return path.stat().st_mtime if path.exists() else 0.0

    def stop(self) -> None:
        """Stop the server; what it still has to write is written."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGTERM)
            try:
                self._server.wait(60)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    def record(self, query: str, *values: object) -> list[Any]:
        """Rows of the server's record and feedback."""
        path = self.folder / "serving" / MODEL / "feedback.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60) as database:
            return database.execute(query, values).fetchall()

    def lists(self) -> list[tuple[float, str]]:
        """When each list on record was answered, and by which version; the oldest first."""
        from recsys.monitoring.archive import LIST_COLUMNS, Archive

        moment, version = map(LIST_COLUMNS.index, ("moment", "version"))
        pages = Archive.of_folder(self.folder / "serving" / MODEL).lists(0, time.time())
        return sorted((row[moment], row[version]) for page in pages for row in page)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
