"""Users at the port: they ask, take and rate through HTTP, many at once, each in the order of time."""

import http.client
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b

from demo.visits import LIST, Visit

AT_ONCE = 16
TAKE = "take"
_TRIES, _PAUSE = 120, 0.5  # where the server answers 503: as often, after so many seconds
Change = Callable[[float], float]


@dataclass
class Seen:
    """What the users saw, to be held against the record."""

    lists: int = 0
    given: int = 0  # events that the server acknowledged
    taken: int = 0
    failed: int = 0
    arms: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))  # version, arm by user


class People:
    """All users of a server."""

    def __init__(self, port: int, speed: float | None) -> None:
        """Take the port of the server, and how many visits a second there are; None: as many as it answers."""
        self._port, self._speed = port, speed
        self._lock = threading.Lock()
        self.seen = Seen()

    def visit(self, visits: Sequence[Visit], change: Change = float) -> None:
        """Make these visits; of one user one after the other, of AT_ONCE users at once.

        Args:
            change: what is done to every rating before it is given.
        """
        queues: list[list[Visit]] = [[] for _ in range(AT_ONCE)]
        for visit in visits:
            queues[blake2b(visit.user.encode(), digest_size=2).digest()[0] % AT_ONCE].append(visit)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda queue: self._go(queue, change), queues))

    def _go(self, visits: Sequence[Visit], change: Change) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for visit in visits:
            self._visit(connection, visit, change)
            if self._speed:
                time.sleep(AT_ONCE / self._speed)
        connection.close()

    def _visit(self, connection: http.client.HTTPConnection, visit: Visit, change: Change) -> None:
        status, headers, body = _ask(connection, "GET", f"/api/recommend/{visit.user}?n={LIST}", b"")
        events: list[dict[str, object]] = []
        if status == http.client.OK:
            request = headers["X-Request-Id"]
            took = next((item for item in json.loads(body) if item in visit.wanted), None)
            if took is not None:
                events.append({"FeedbackType": TAKE, "UserId": visit.user, "ItemId": took, "RequestId": request})
        taken = len(events)
        for item, rating in visit.ratings:
            events.append({"FeedbackType": "rating", "UserId": visit.user, "ItemId": item, "Value": change(rating)})
        answered, _, said = _ask(connection, "POST", "/api/feedback", json.dumps(events).encode())
        with self._lock:
            self.seen.failed += (status != http.client.OK) + (answered != http.client.OK)
            if status == http.client.OK:
                self.seen.lists += 1
                self.seen.taken += taken
                self.seen.arms[visit.user].add((headers["X-Recsys-Version"], headers["X-Recsys-Arm"]))
            if answered == http.client.OK:
                self.seen.given += json.loads(said)["RowAffected"]


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """What a request is answered; a server that has too much to do says 503, and is asked again as clients do."""
    for last in [*[False] * _TRIES, True]:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.client.SERVICE_UNAVAILABLE or last:
            break
        time.sleep(_PAUSE)
    return answer.status, answer.headers, content
