"""The demonstration: its visits, its users against a server of two lines, and all of it, which checks itself."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from demo.people import TAKE, People
from demo.visits import VISIT, Visit, halves
from tests.support.pipeline import PROJECT


def test_the_newer_half_is_cut_into_visits_in_the_order_of_time():
    random = np.random.default_rng(0)
    rows = np.stack([random.integers(1, 9, 400), np.arange(400), random.integers(1, 6, 400), np.arange(400)], 1)
    older, visits = halves(random.permutation(rows))
    assert older[:, 3].tolist() == list(range(200))
    given = sorted((int(item), rating) for visit in visits for item, rating in visit.ratings)
    assert given == [(int(item), float(rating)) for _, item, rating, _ in rows[200:]]
    assert all(one.moment <= other.moment for one, other in pairwise(visits))
    assert max(len(visit.ratings) for visit in visits) == VISIT
    for visit in visits:
        later = [other for other in visits if other.user == visit.user and other.moment >= visit.moment]
        assert visit.wanted == {item for other in later for item, _ in other.ratings}


class _Server(BaseHTTPRequestHandler):
    """Answers every list with items 1, 2 and 3, and counts what it is given; user `lost` is not answered."""

    protocol_version = "HTTP/1.1"
    given: list[dict] = []  # noqa: RUF012

    def do_GET(self):
        lost = "lost" in self.path
        self._answer(500 if lost else 200, json.dumps(["1", "2", "3"]))

    def do_POST(self):
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.given.extend(events)
        self._answer(200, json.dumps({"RowAffected": len(events)}))

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        for name, value in (("X-Request-Id", f"for {self.path}"), ("X-Recsys-Version", "7"), ("X-Recsys-Arm", "a")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def test_users_ask_take_what_they_want_and_rate():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        people = People(server.server_port, None)
        people.visit([Visit("u", 0.0, (("9", 4.0),), frozenset({"9", "2"}))], lambda rating: rating - 1)
        people.visit([Visit("v", 0.0, (("8", 5.0),), frozenset({"8"})), Visit("lost", 0.0, (), frozenset({"1"}))])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    rated = {(event["UserId"], event["ItemId"]): event["Value"] for event in _Server.given if "Value" in event}
    assert rated == {("u", "9"): 3.0, ("v", "8"): 5.0}
    (taken,) = (event for event in _Server.given if event["FeedbackType"] == TAKE)
    assert (taken["UserId"], taken["ItemId"], taken["RequestId"]) == ("u", "2", "for /api/recommend/u?n=3")
    seen = people.seen
    assert (seen.lists, seen.given, seen.taken, seen.failed) == (2, 3, 1, 1)
    assert seen.arms["u"] == {("7", "a")}


@pytest.mark.e2e
def test_the_whole_story_happens_as_it_claims_and_is_drawn(tmp_path):
    picture = tmp_path / "demo.svg"
    done = subprocess.run(
        [sys.executable, "-m", "demo", f"--picture={picture}"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 claims hold" in done.stdout
    words = [text.text for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    for sentence in ("version 2 is promoted by the server", "version 3 is rolled back by the server", "monitor alarms"):
        assert any(sentence in word for word in words), words
    assert picture.stat().st_size < 150_000
