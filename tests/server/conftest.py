import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from steps.support.entrypoint import run_step
from tests.support.pipeline import Store, options, step_function, write_sample
from tests.support.services import DatabaseServer
from tests.support.team_server import TeamServer, team_server

PATIENCE = 60  # seconds that something may take on a busy machine before it counts as never happening


@pytest.fixture(scope="module")
def team(mariadb: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    """The compose file's server over a private MariaDB."""
    with team_server(mariadb, tmp_path_factory.mktemp("team")) as server:
        yield server


@pytest.fixture(scope="module")
def user(team: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A user's folder, with a sample of ratings in `home`; the tracking database in it is not used."""
    store = Store(tmp_path_factory.mktemp("user"))
    store.home.mkdir()
    write_sample(store.home / "my.csv")
    return store


@pytest.fixture
def step(team: TeamServer, user: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a step in this process against the server, as its command line would."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.address)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")  # which a step does not heed
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # doctor changes these two; here they are put back
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setenv("RECSYS_DATA", str(user.data))
    monkeypatch.setenv("RECSYS_STUDY_STORAGE", team.studies)

    def run(name: str, **parameters: object) -> None:
        run_step(name, step_function(name), options(folder=user.home, **parameters))

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert mlflow.active_run() is None


def wait(happened: Callable[[], object], what: str) -> None:
    """Wait until it has happened."""
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < limit, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.05)


class Background:
    """Work in a thread; its exception is raised where it is waited for."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(work,))
        self.thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error


def read_all(folder: Path) -> bytes:
    """The content of every file in a folder."""
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
