"""What MLflow's server lets through and ours does not: by its functions, and with the real server without a login."""

import asyncio
import http.client
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from mlflow.tracking import MlflowClient

from server.brake import Brake, even_out
from server.guard import artifact_refusal, is_foreign, place_refusal
from tests.support.pipeline import PROJECT, Store, new_store
from tests.support.services import free_port
from tests.support.waiting import wait

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
AJAX = "/ajax-api/2.0/mlflow-artifacts"


@pytest.mark.parametrize(
    "path",
    [
        *(f"{ARTIFACTS}{rest}" for rest in ("", "/", "/.", "/%2e", "/%252e", "//", "/0", "/0/", "/0/%2e", "/0/models")),
        *(f"{AJAX}/artifacts/{rest}" for rest in ("x/..", "0/run/..", "0/run/%2e%2e/y", "0\\..\\run", "0//run/x")),
        "//api/2.0//mlflow-artifacts//artifacts//.",
    ],
)
def test_a_delete_that_takes_more_than_one_run_s_files_is_refused(path):
    assert artifact_refusal("DELETE", path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", f"{ARTIFACTS}/0/0123abcd/artifacts"),
        ("DELETE", f"{ARTIFACTS}/0/0123abcd/artifacts/"),
        ("DELETE", f"{ARTIFACTS}/0/models/m-1/artifacts/größe.txt"),
        ("PUT", f"{ARTIFACTS}/0/0123abcd/artifacts/..hidden/x...txt"),
        ("POST", f"{AJAX}/mpu/create/0/0123abcd/artifacts/x"),
        ("GET", f"{ARTIFACTS}/%2e"),
        ("DELETE", "/api/2.0/mlflow/runs/delete-tag"),
    ],
)
def test_what_clients_do_with_artifacts_is_let_through(method, path):
    assert artifact_refusal(method, path) is None


def test_a_put_may_not_go_by_dots():
    assert artifact_refusal("PUT", f"{ARTIFACTS}/0/%2e%2e/x")
    assert artifact_refusal("POST", f"{AJAX}/mpu/create/0/../x")


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        ("", "127.0.0.1:5000", False),  # no page at all
        ("http://127.0.0.1:5000", "127.0.0.1:5000", False),
        ("http://localhost:5000", "localhost:5000", False),
        ("http://localhost:8888", "localhost:5000", True),  # somebody's notebook
        ("http://127.0.0.1:5000", "localhost:5000", True),
        ("null", "localhost:5000", True),
        ("https://mlflow.example.org", "mlflow.example.org", False),
        ("https://lab.example.org", "mlflow.example.org", False),
        ("https://a.team.example", "mlflow.example.org", False),
        ("https://evil.example", "mlflow.example.org", True),
    ],
)
def test_a_page_is_foreign_unless_it_is_the_server_s_or_allowed(origin, host, foreign):
    assert is_foreign(origin, host, ["https://lab.example.org", "https://*.team.example"]) is foreign


@pytest.mark.parametrize("key", ["artifact_location", "artifactLocation"])
@pytest.mark.parametrize("place", ["/etc", "file:///etc", "s3://other/x", "mlflow-artifacts://evil/x", "x/y"])
def test_an_experiment_outside_the_artifact_root_is_refused(key, place):
    assert place_refusal({"name": "x", key: place})
    assert place_refusal(f'{{"name": "x", "{key}": "{place}"}}')  # MLflow decodes this too
    assert place_refusal({key: "mlflow-artifacts:/a/%2e%2e/b"})


@pytest.mark.parametrize(
    "content", [{"name": "x"}, {"artifact_location": ""}, {"artifact_location": "mlflow-artifacts:/7"}, None]
)
def test_an_experiment_within_it_is_made(content):
    assert place_refusal(content) is None


class Tries:
    """An application whose one password is `right`, behind the brake, with a clock that stands still."""

    def __init__(self) -> None:
        self.now, self.looked_at, self.password = 0.0, 0, "right"
        self.brake = Brake(self.app, lambda: self.now)

    async def app(self, scope, receive, send):
        self.looked_at += 1
        right = dict(scope["headers"])[b"authorization"] == header("ada", self.password)
        await send({"type": "http.response.start", "status": 200 if right else 401, "headers": []})

    async def ask(self, password, name="ada", address="10.0.0.1"):
        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"authorization", header(name, password))]
        await self.brake({"type": "http", "client": (address, 1), "headers": headers}, None, send)
        return sent[0]["status"]

    def __call__(self, *arguments, **options):
        return asyncio.run(self.ask(*arguments, **options))


def header(name, password):
    import base64

    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


def test_wrong_passwords_wait_longer_and_longer():
    tries, looked_at = Tries(), []
    for second in range(601):
        tries.now = float(second)
        for attempt in range(5):
            tries(f"wrong {second} {attempt}")
        looked_at.append(tries.looked_at)
    assert looked_at[:2] == [5, 10]
    assert looked_at[600] <= 10 + 7 + 600 / 60  # free, up to a minute's wait, then one a minute
    tries.now += 61
    assert tries("right") == 200
    assert tries("wrong again") == 401  # a right one starts anew


def test_who_is_at_work_is_not_kept_out_by_who_guesses():
    tries = Tries()
    assert tries("right") == 200
    for attempt in range(50):
        tries(f"wrong {attempt}")
    assert tries("wrong") == 429
    assert tries("right") == 200
    assert tries("wrong", address="10.0.0.2") == 401
    tries.password = "changed"
    assert tries("right") == 401


def test_many_names_from_one_address_are_braked_too():
    tries = Tries()
    statuses = [tries("123456", name=f"user {number}") for number in range(100)]
    assert statuses.count(401) == 30
    assert set(statuses) == {401, 429}


def test_many_tries_at_once_are_no_more_than_the_free_ones():
    tries = Tries()

    async def all_at_once():
        return await asyncio.gather(*(tries.ask(f"wrong {number}") for number in range(100)))

    assert asyncio.run(all_at_once()).count(401) == 10


def test_an_unknown_name_costs_a_check_of_a_password_too(monkeypatch):
    checked = []
    monkeypatch.setattr("werkzeug.security.check_password_hash", lambda found, given: checked.append(given))

    class Known:
        def authenticate_user(self, username, password, **_):
            if username == "ada":
                checked.append(password)
            return (username, password) == ("ada", "right")

        def has_user(self, username):
            return username == "ada"

    store = Known()
    even_out(store)
    answers = [store.authenticate_user(name, password) for name in ("ada", "bob") for password in ("right", "wrong")]
    assert answers == [True, False, False, False]
    assert checked == ["right", "wrong", "right", "wrong"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`make server` without a login over a sqlite file; its port and the folder of its artifacts."""
    base = tmp_path_factory.getbasetemp()
    store: Store = new_store(tmp_path_factory.mktemp("open") / "store", base)
    port, artifacts, log = free_port(), store.folder / "artifacts", store.folder / "log"
    environment = store.environment(MLFLOW_BACKEND_STORE_URI=store.uri, MLFLOW_PORT=str(port), MLFLOW_WORKERS="1") | {
        "MLFLOW_ARTIFACTS_DESTINATION": str(artifacts)
    }
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "server/start.py"], cwd=PROJECT, env=environment, stdout=output, stderr=output
        )

    def answers():
        assert started.poll() is None, log.read_text()
        with suppress(OSError, http.client.HTTPException):
            return ask(port, "GET", "/health")[0] == 200
        return False

    try:
        wait(answers, lambda: f"the server's start ({log.read_text()[-2000:]})")
        yield port, artifacts
    finally:
        processes = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        for process in processes:
            process.terminate()
        for process in psutil.wait_procs(processes, timeout=20)[1]:
            process.kill()
        started.wait()


def ask(port, method, path, body="", **headers):
    """One request, its path sent as it stands; status and headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


@pytest.mark.process
def test_the_real_server_keeps_its_artifacts_and_lets_no_foreign_page_write(server, tmp_path):
    port, artifacts = server
    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.create_experiment("kept")
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "x", "kept.txt")
    files = {path for path in artifacts.rglob("*") if path.is_file()}
    assert [path.name for path in files] == ["kept.txt"]
    for path in ("%2e", ".", "%252e", "", experiment, f"{experiment}/%2e"):
        assert ask(port, "DELETE", f"{ARTIFACTS}/{path}")[0] == 403, path
    assert {path for path in artifacts.rglob("*") if path.is_file()} == files

    create = "/ajax-api/2.0/mlflow/experiments/create"
    for origin in ("http://localhost:8888", f"http://localhost:{port}", "null"):
        assert ask(port, "POST", create, '{"name": "evil"}', Origin=origin)[0] == 403
        assert ask(port, "OPTIONS", create, Origin=origin, **{"Access-Control-Request-Method": "POST"})[0] == 403
    status, headers = ask(
        port, "GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", Origin="http://localhost:1"
    )
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, None)  # the browser keeps it from the page
    assert ask(port, "POST", create, '{"name": "own"}', Origin=f"http://127.0.0.1:{port}")[0] == 200
    for host in ("localhost:evil", f"127.0.0.1:{port}@evil"):
        assert ask(port, "GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", Host=host)[0] == 403

    outside = f'{{"name": "outside", "artifactLocation": "{tmp_path}"}}'
    assert ask(port, "POST", create, outside)[0] == 400
    names = {found.name for found in client.search_experiments()}
    assert names == {"Default", "kept", "own"}
    client._tracking_client._get_artifact_repo(run.info.run_id).delete_artifacts("kept.txt")  # what clients may do
    assert not any(path.is_file() for path in artifacts.rglob("*"))
    assert not any(tmp_path.iterdir())
