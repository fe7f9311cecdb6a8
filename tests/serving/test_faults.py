import json
import os
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager

import pytest
import requests

from recsys.errors import InputError
from recsys.serving.settings import ServingSettings
from recsys.serving.supervisor import open_socket
from tests.support.killing import kill_under_load
from tests.support.serving_site import Server, form
from tests.support.waiting import HANG_SECONDS, Background, wait

pytestmark = pytest.mark.process
SWAPS = 100


@contextmanager
def started(folder, **settings):
    running = Server(folder / "serving", **settings)
    running.point_at(form(folder / "one"))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def server(tmp_path):
    with started(tmp_path, feedback_seconds=60) as running:
        yield running


def test_a_hundred_changes_of_version_under_load_fail_no_request(server, tmp_path):
    forms = [tmp_path / "one", form(tmp_path / "two", "2", liked=0.8)]
    wrong, versions, done = [], set(), threading.Event()

    def ask():
        with requests.Session() as session:
            while not done.is_set():
                answer = session.get(f"{server.address}/api/recommend/u2?n=4", timeout=120)
                versions.add(answer.headers.get("x-recsys-version"))
                if answer.status_code != 200 or len(answer.json()) != 4:
                    wrong.append(answer.text)

    def served(version):
        found = {server.get("version", headers={"Connection": "close"}).text.strip() for _ in range(4)}
        return found == {version}

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for swap in range(SWAPS):
            server.point_at(forms[swap % 2])
            wait(lambda swap=swap: served("12"[swap % 2]), "the change of version")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert versions == {"1", "2"}


def test_kills_of_workers_and_servers_lose_no_acknowledged_feedback_and_count_none_twice(server):
    found = kill_under_load(server, ["worker", "server", "worker", "server"])
    assert len(found.acknowledged) > 200
    assert found.unanswered > 0  # some were under way, and sent again
    assert found.lost == 0
    assert found.twice == 0
    assert found.lists & set(found.recorded)  # not all: what waits for the record is lost with the process
    server.start()
    user = found.acknowledged[0][0]
    items = [item for giver, item in found.acknowledged if giver == user]
    again = server.get(f"api/user/{user}/feedback?n=10000").json()
    assert {row["ItemId"] for row in again} >= set(items)


def test_a_killed_worker_is_replaced(server):
    before = server.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    wait(lambda: len(server.worker_pids()) == 2 and before[0] not in server.worker_pids(), "another worker")
    wait(server.answers, "an answer")
    assert server.get("api/recommend/u1").status_code == 200


HOLD = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
if "recsys.serving.worker" in sys.orig_argv:
    try:
        (here / "held").touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        (here / "held").write_text(f"{os.getpid()}\\n")
        while True:
            time.sleep(3600)
"""


def test_no_worker_answers_before_all_are_up_or_have_died(tmp_path):
    (site := tmp_path / "site").mkdir()
    (site / "sitecustomize.py").write_text(HOLD)  # the first worker of all never gets to its work
    server = Server(tmp_path / "serving", paths=[site])
    server.point_at(form(tmp_path / "one"))
    starting = Background(server.start)
    try:
        wait(lambda: server.process and (site / "held").exists() and (site / "held").read_text()[-1:], "the first one")
        held = int((site / "held").read_text())
        # The process that writes the record is there: the second worker would answer within milliseconds.
        wait(lambda: len(server.pids()) == 3, "the second one")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(2)
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: here\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(HANG_SECONDS)
            os.kill(held, signal.SIGKILL)
            assert client.recv(12) == b"HTTP/1.1 200"
        starting.join()
        wait(lambda: len(server.pids()) == 4, "another one in its place")
    finally:
        server.stop()


def test_workers_end_with_a_supervisor_that_was_killed(server):
    pids = server.worker_pids()
    server.stop(signal.SIGKILL)
    wait(
        lambda: subprocess.run(["ps", "-p", ",".join(map(str, pids))], capture_output=True).returncode != 0, "their end"
    )


def test_a_form_that_is_damaged_leaves_the_old_one_in_its_place(tmp_path):
    damaged = form(tmp_path / "two", "2")
    with (damaged / "item_factors.npy").open("ab") as file:
        file.write(b"more")
    with started(tmp_path, workers=1) as server:  # a second one may not have looked at it yet
        server.point_at(damaged)
        wait(lambda: server.get("api/health/ready").json()["problem"], "the refusal")
        assert "item_factors.npy" in server.get("api/health/ready").json()["problem"]
        assert server.get("version").text == "1\n"


def test_lists_go_on_while_feedback_cannot_be_kept(tmp_path):
    with started(tmp_path, feedback_seconds=1) as server:
        _check_lists_without_feedback(server)


def _check_lists_without_feedback(server):
    database = server.folder / "feedback.db"
    holder = subprocess.Popen(
        ["python", "-c", f"import fcntl, time; f = open({str(database) + '.lock'!r}, 'w'); fcntl.flock(f, 2); "
         "print('held', flush=True); time.sleep(10**6)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline()
        refused = server.post("api/feedback", {"UserId": "w", "ItemId": "i1", "Value": 4})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        assert "not acknowledged" in refused.json()["detail"]
        assert server.get("api/recommend/u1").status_code == 200
    finally:
        holder.kill()
        holder.wait()
    event = {"UserId": "w", "ItemId": "i2", "Value": 4}
    wait(lambda: server.post("api/feedback", event).status_code == 200, "feedback that is kept again")


def test_keys_are_asked_for(tmp_path):
    running = Server(tmp_path / "serving", workers=1, read_keys=("reader",), feedback_keys=("giver",))
    running.point_at(form(tmp_path / "one"))
    try:
        running.start()
        assert running.get("api/recommend/u1").status_code == 401
        assert running.get("api/recommend/u1", headers={"X-API-Key": "giver"}).status_code == 401
        assert running.get("api/recommend/u1", headers={"X-API-Key": "reader"}).status_code == 200
        assert running.get("api/recommend/u1", headers={"Authorization": "Bearer reader"}).status_code == 200
        event = {"UserId": "u1", "ItemId": "i1", "Value": 4}
        assert running.post("api/feedback", event, {"X-API-Key": "reader"}).status_code == 401
        assert running.post("api/feedback", event, {"X-API-Key": "giver"}).status_code == 200
        assert "reader" not in json.dumps(running.get("api/health/ready").json())
    finally:
        running.stop()


def test_another_machine_s_address_needs_keys():
    with pytest.raises(InputError, match="there are no keys"):
        open_socket("0.0.0.0", 0, ServingSettings())
