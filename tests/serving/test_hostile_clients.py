"""Clients and machines that behave badly, against real workers: lists go on, and nothing acknowledged is lost."""

import http.client
import os
import resource
import signal
import socket
import sqlite3
import threading
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.record_rows import record_rows
from tests.support.serving_site import Server, form
from tests.support.waiting import wait

pytestmark = pytest.mark.process
IDLE = 2000
EVENT = {"FeedbackType": "rating", "UserId": "u", "ItemId": "i1", "Value": 4}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    running = Server(folder / "serving", body_seconds=3, feedback_seconds=60)
    running.point_at(form(folder / "one"))
    try:
        yield running.start()
    finally:
        running.stop()


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=600)
    opened.sendall(sent)
    return opened


def answer(opened: socket.socket) -> http.client.HTTPResponse:
    found = http.client.HTTPResponse(opened)
    found.begin()
    return found


def lists_go_on(server: Server) -> None:
    assert server.get("api/recommend/u2?n=3", headers={"Connection": "close"}).status_code == 200


def test_a_client_that_asks_for_a_head_alone_or_waits_to_send_its_body_is_answered(server):
    opened = connect(server, b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    head = http.client.HTTPResponse(opened, method="HEAD")
    head.begin()
    assert head.status == 405  # only GET is answered there
    opened.sendall(
        b"POST /api/session/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert opened.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
    opened.sendall(b"[]")
    assert answer(opened).status == 200
    opened.close()


def test_idle_connections_hold_nobody_up(server):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    many = min(IDLE, limits[1] - 500)  # where a machine allows fewer
    opened = []
    try:
        opened += [connect(server) for _ in range(many)]
        for _ in range(20):
            lists_go_on(server)
        last = opened[-1]
        last.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(last).read() == b"1\n"
    finally:
        for one in opened:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_slow_client_is_let_go_of(server):
    body = connect(server, b"POST /api/feedback HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    head = connect(server, b"GET /api/recommend/u2 HTTP/1.1\r\nHost: ")
    lists_go_on(server)
    refused = answer(body)
    assert refused.status == 408
    assert b"did not arrive within 3 s" in refused.read()
    assert head.recv(1) == b""  # closed
    body.close()
    head.close()


def test_a_body_of_100_mb_is_refused_before_it_is_read(server):
    said = connect(server, b"POST /api/feedback HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
    assert answer(said).status == 413  # nothing of it was sent
    said.close()
    before = [psutil.Process(pid).memory_info().rss for pid in server.worker_pids()]
    untold = connect(server, b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    try:
        for _ in range(100):
            untold.sendall(chunk)
    except OSError:
        pass  # closed meanwhile
    untold.close()
    lists_go_on(server)
    after = [psutil.Process(pid).memory_info().rss for pid in server.worker_pids()]
    assert max(after) - max(before) < 50e6


def test_what_is_no_http_or_no_text_is_refused(server):
    for sent in (
        b"\x00\xff\xfe\r\n\r\n",
        b"GET /api/recommend/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/recommend/u1?n=%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/recommend/u1 HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\xff\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        opened = connect(server)
        try:
            opened.sendall(sent)
            assert answer(opened).status in (200, 400, 404, 414, 431)
        except (ConnectionError, http.client.HTTPException):
            pass  # closed without a word
        opened.close()
        lists_go_on(server)
    for user in ("x" * 10_000, "../../etc/passwd", "' or 1=1 --", "a\0b", "%", "\u202e"):
        found = server.get(f"api/recommend/{requests.utils.quote(user, safe='')}")
        assert found.status_code == (400 if len(user) > 512 or "\0" in user else 200)
    log = server.get("metrics").text
    assert 'status="500"' not in log


def test_events_that_no_file_could_hold_end_the_feedback_of_no_worker(server):
    click = {"FeedbackType": "click", "UserId": "odd", "ItemId": "i1"}
    for wrong in ({"Value": 10**400}, {"Value": -(10**400)}, {"UserId": "a\0b"}, {"ItemId": "\0"}):
        refused = server.post("api/feedback", click | wrong)
        assert refused.status_code == 400
        assert "is needed, got" in refused.json()["detail"]
    taken = ({"Value": 2**63}, {"RequestId": "\ud800"}, {"FeedbackType": "\ud800"}, {"Timestamp": "\ud800"})
    for at, odd in enumerate(taken):
        for worker in range(6):  # whichever answers
            event = click | {"ItemId": f"i{at}-{worker}"} | odd
            found = server.post("api/feedback", event, {"Connection": "close"})
            assert found.json() == {"RowAffected": 1}
    rows = server.get("api/user/odd/feedback").json()
    assert len(rows) == 6 * len(taken)
    assert {row["Value"] for row in rows} == {2.0**63, None}
    assert 'status="500"' not in server.get("metrics").text


def test_a_full_disk_refuses_feedback_and_lists_go_on(server):
    workers = [psutil.Process(pid) for pid in server.worker_pids()]
    assert server.post("api/feedback", EVENT | {"UserId": "full"}).status_code == 200
    shown = set()
    size = 1024  # bytes that a file may have from now on, which stops every write as a full disk does
    for worker in workers:
        worker.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        for number in range(5):
            refused = server.post("api/feedback", EVENT | {"UserId": "full", "ItemId": f"lost{number}"})
            assert refused.status_code == 503
            assert "feedback cannot be kept now" in refused.json()["detail"]
            shown.add(server.get("api/recommend/u2?n=3").headers["x-request-id"])
        assert server.get("api/health/ready").status_code == 200
    finally:
        for worker in workers:
            worker.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server.post("api/feedback", EVENT | {"UserId": "full", "ItemId": "i2"}).status_code == 200
    assert [row["ItemId"] for row in server.get("api/user/full/feedback").json()] == ["i2", "i1"]
    assert [worker.pid for worker in workers] == server.worker_pids()

    def recorded():
        return {request for (request,) in record_rows(server.folder / "feedback.db")}

    wait(lambda: shown <= recorded(), "the record of the lists that were answered meanwhile")


def test_more_feedback_at_once_than_may_wait_is_refused_in_part_and_kept_once(server):
    givers, size = 12, 5000  # 60,000 events, of which 10,000 may wait in each worker
    refused = []

    def give(number):
        events = [EVENT | {"UserId": f"many{number}", "ItemId": f"thing{at}"} for at in range(size)]
        key = {"Idempotency-Key": f"many{number}"}
        while (answer := server.post("api/feedback", events, key)).status_code != 200:
            assert answer.status_code == 503
            refused.append(int(answer.headers["retry-after"]))

    threads = [threading.Thread(target=give, args=(number,)) for number in range(givers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert server.get("api/recommend/u2?n=3").status_code in (200, 503)  # told to come again, and not left waiting
    for thread in threads:
        thread.join()
    with sqlite3.connect(server.folder / "feedback.db") as database:
        counts = database.execute(
            "select count(*), count(distinct item) from feedback where user glob 'many*' group by user"
        ).fetchall()
    assert counts == [(size, size)] * givers
    assert all(seconds > 0 for seconds in refused)


def test_killed_workers_lose_no_acknowledged_feedback(server):
    kept, failed, done = [], [], threading.Event()

    def give(number):
        for count in range(10**6):
            event = EVENT | {"UserId": f"killed{number}", "ItemId": f"thing{count}"}
            try:
                found = requests.post(f"{server.address}/api/feedback", json=event, timeout=600)
                (kept if found.status_code == 200 else failed).append((event["UserId"], event["ItemId"]))
            except requests.RequestException:
                failed.append((event["UserId"], event["ItemId"]))
            if done.is_set():
                return

    threads = [threading.Thread(target=give, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            aim = len(kept) + 50
            wait(lambda aim=aim: len(kept) > aim, "feedback")
            victim = server.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            wait(lambda victim=victim: victim not in server.worker_pids(), "its end")
            wait(lambda: len(server.worker_pids()) == 2, "another worker")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    found = [
        (row["UserId"], row["ItemId"])
        for number in range(4)
        for row in server.get(f"api/user/killed{number}/feedback?n=10000").json()
    ]
    assert len(kept) > 150
    assert set(kept) <= set(found)
    assert len(set(found)) == len(found)
    assert len(failed) <= 4 * 3  # at most what each had under way at each kill


JUMPS = """
import time
from pathlib import Path
real = time.time
time.time = lambda: real() + float(Path(__file__).with_name("offset").read_text())
"""


def test_a_clock_that_jumps_changes_no_list_and_loses_no_feedback(tmp_path):
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(JUMPS)
    (clock / "offset").write_text("0")
    running = Server(tmp_path / "serving", paths=[Path(clock)])
    running.point_at(form(tmp_path / "one"))
    try:
        running.start()
        first = running.get("api/recommend/u2?n=4").json()
        for number, offset in enumerate((0, -86400, 86400 * 3650, -86400 * 20000, 0)):
            (clock / "offset").write_text(str(offset))
            rated = EVENT | {"UserId": "late", "Value": 1 + number}
            assert running.post("api/feedback", rated).json() == {"RowAffected": 1}
            assert running.get("api/recommend/u2?n=4").json() == first
            assert running.get("api/user/late/history").json()[-1]["Rating"] == 1 + number  # the last one given
    finally:
        running.stop()
