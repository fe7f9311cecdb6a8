"""The pipeline as the tests use it: a sample of ratings, a store of its own, and the commands a user types."""

import csv
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import requests
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from steps.support.command import CONNECT_THEMSELVES, find_program
from steps.support.entrypoint import run_step
from tests.support.services import free_port
from tests.support.waiting import wait

PROJECT = Path(__file__).resolve().parents[2]
COLUMNS = {
    "user_column": "Kundin / Nr.",
    "item_column": "sku",
    "rating_column": "stars",
    "timestamp_column": "when",
    "separator": ";",
}
"""The names in the sample: none is a default, some need quotes in a shell."""
VERSION_TAGS = {
    "family": "bias",
    "ratings": "my.csv",
    "data_version": "d" * 32,
}
"""The tags of a version that `train` registered."""
VERSION_FACTS = {
    "ratings": "/data/my.csv",
    "data_version": "d" * 32,
    "split": "hash",
    "git_commit": "0123456789abcdef",
    "git_dirty": "true",
    "author": "Anna",
}
"""What its description says beside."""


def write_sample(path: Path, *, users: int = 60, items: int = 40, seed: int = 1) -> Path:
    """Ratings from 0.5 to 5 of users by items that their biases explain but for some noise."""
    random = np.random.default_rng(seed)
    user_bias, item_bias = random.normal(0, 0.7, users), random.normal(0, 0.7, items)
    header = [COLUMNS["user_column"], "note", COLUMNS["rating_column"], COLUMNS["item_column"], "when"]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(header)
        for user in range(users):
            for item in random.choice(items, items // 2, replace=False):
                rating = 3.3 + user_bias[user] + item_bias[item] + random.normal(0, 0.5)
                rating = np.clip(np.round(rating * 2) / 2, 0.5, 5)
                rows.writerow([f"größe {user:03d}", "a, b", rating, f"SKU-{item}", 1_600_000_000 + 60 * item])
    return path


def write_csv(path: Path, rows: Sequence[Sequence[object]], header: str = "user_id,item_id,rating") -> Path:
    """A small comma-separated file."""
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def grid(users: int = 12, items: int = 12, low: float = 1, high: float = 5) -> list[tuple[str, str, float]]:
    """Every user rates every item; the ratings run over whole steps of the scale."""
    levels = np.linspace(low, high, 5)
    return [(f"u{u}", f"i{i}", float(levels[(u * 7 + i * 3 + u * i) % 5])) for u in range(users) for i in range(items)]


@dataclass(frozen=True)
class Store:
    """A folder with a tracking database, artifacts, prepared data, and `home`, where commands are typed."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def environment(self, **changes: str) -> dict[str, str]:
        """The variables of a user who has only chosen where things are kept."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RECSYS_"))}
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        return kept | {
            # No resolve(): a virtual environment's python is a link out of it.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": self.uri,
            "RECSYS_DATA": str(self.data),
            "TMPDIR": str(scratch),
            **changes,
        }

    def mlflow_run(self, project: str, step: str, *, check: bool = True, **parameters: object) -> Any:
        """Type `mlflow run` in `home`."""
        done = subprocess.run(
            mlflow_command(project, step, **parameters),
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def experiments(self) -> list[str]:
        """The ids of all experiments."""
        return [found.experiment_id for found in self.client.search_experiments()]

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        return list(
            self.client.search_runs(self.experiments, order_by=["attributes.start_time DESC"], max_results=1000)
        )

    def run_named(self, name: str) -> Run:
        """The newest run whose name is this one, or this one and what it was done to."""
        longer = tuple(f"{name}{separator}" for separator in " :,")
        return next(run for run in self.runs() if run.info.run_name == name or run.info.run_name.startswith(longer))

    def statuses(self) -> list[tuple[str, str]]:
        """Name and status of every run, by a query of its own: cheap enough to be asked all the time."""
        with sqlite3.connect(f"file:{self.folder / 'mlflow.db'}?mode=ro", uri=True) as database:
            return database.execute("select name, status from runs order by start_time desc").fetchall()

    def artifacts(self, run: Run, path: str | None = None) -> set[str]:
        """Paths of a run's artifacts, folders entered."""
        found: set[str] = set()
        for item in self.client.list_artifacts(run.info.run_id, path):
            found |= self.artifacts(run, item.path) if item.is_dir else {item.path}
        return found

    def contents(self) -> tuple[set[str], list[tuple[int, str, dict[str, str]]]]:
        """What must not change when something is refused: the files of the data folder, and the versions."""
        files = {str(path.relative_to(self.data)) for path in self.data.rglob("*")} if self.data.exists() else set()
        versions = [
            (int(version.version), version.current_stage, dict(version.tags))
            for model in self.client.search_registered_models()
            for version in self.client.search_model_versions(f"name = '{model.name}'")
        ]
        return files, sorted(versions, key=lambda version: version[0])


def new_store(folder: Path, shared: Path) -> Store:
    """A store in `folder`; its empty database is made once, in `shared`, since MLflow needs seconds for one."""
    template = shared / "empty.db"
    if not template.exists():
        uri = f"sqlite:///{template}"
        MlflowClient(uri, uri).search_experiments()
    (folder / "home").mkdir(parents=True)
    shutil.copy(template, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("update experiments set artifact_location = ?", (str(folder / "artifacts" / "0"),))
    return Store(folder)


def mlflow_command(project: str, step: str, **parameters: object) -> list[str]:
    """What a user types, as a list."""
    mlflow = str(Path(sys.executable).parent / "mlflow")
    options = [part for key, value in parameters.items() for part in ("-P", f"{key}={value}")]
    return [mlflow, "run", project, "-e", step, "--env-manager", "local", *options]


def step_command(step: str, **parameters: object) -> list[str]:
    """A step without `mlflow run`, to be started in the project's folder."""
    return [sys.executable, "-m", f"steps.{step}", *options(**parameters)]


def options(**parameters: object) -> list[str]:
    """Parameters as a step reads them."""
    return [f"--{key}={value}" for key, value in parameters.items()]


@contextmanager
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Puts back what steps change in the process that they run in."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    yield monkeypatch
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert mlflow.active_run() is None


def stepper(folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Callable[..., None]:
    """Runs a step in this process, as its command line would in `folder`, with these variables set."""
    for name, value in {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", **environment}.items():
        monkeypatch.setenv(name, value)

    def step(name: str, **parameters: object) -> None:
        given = options(**{"folder": folder, **parameters})
        run_step(name, find_program(name), given, connected=name not in CONNECT_THEMSELVES)

    return step


@contextmanager
def serving(store: Store, command: str, *options: str, uri: str = "") -> Iterator[str]:
    """The address of an `mlflow ui` or `mlflow server` over a store, or the database `uri`, while it is needed."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    mlflow = str(Path(sys.executable).parent / "mlflow")
    started = [mlflow, command, "--backend-store-uri", uri or store.uri, "--host", "127.0.0.1", "--port", str(port)]
    log = store.folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*started, "--workers", "1", *options],
            cwd=store.home,
            env=store.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(lambda: _answers(address, server, log), lambda: f"the server's start ({log.read_text()})")
            yield address
        finally:
            top = psutil.Process(server.pid)
            family = [top, *top.children(recursive=True)]
            for process in family:
                process.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                process.kill()
            server.wait()


def _answers(address: str, server: subprocess.Popen, log: Path) -> bool:
    assert server.poll() is None, log.read_text()
    with suppress(requests.RequestException):
        return requests.get(f"{address}/health", timeout=5).ok
    return False
