from collections.abc import Callable, Iterator

import pytest

from tests.support.pipeline import Store, restored, stepper, write_sample
from tests.support.services import DatabaseServer
from tests.support.team_server import TeamServer, team_server


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
    variables = {
        "MLFLOW_TRACKING_URI": team.address,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",  # which a step does not heed
        "RECSYS_DATA": str(user.data),
        "RECSYS_STUDY_STORAGE": team.studies,
    }
    with restored(monkeypatch):
        yield stepper(user.home, monkeypatch, **variables)
