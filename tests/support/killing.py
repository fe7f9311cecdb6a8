"""Kills of a server and of its workers while clients give feedback and ask for lists, and what is there afterwards."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import psutil
import requests

from tests.support.record_rows import record_rows
from tests.support.serving_site import Server
from tests.support.waiting import wait

Victim = Literal["worker", "server"]

_GIVERS = 4
_AGAIN_SECONDS = 0.05
_LIST_EVERY = 5  # events


@dataclass
class Outcome:
    """What clients were told, and what the file of feedback and record says."""

    kills: dict[str, int]
    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # user and item; an item is given once
    unanswered: int = 0  # requests for feedback, each sent again until it is acknowledged
    lists: set[str] = field(default_factory=set)  # request ids of lists that were answered
    restarts: list[float] = field(default_factory=list)  # seconds from the start of a killed server to its first answer
    kept: list[tuple[str, str]] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Events that were acknowledged and are not there."""
        return len(set(self.acknowledged) - set(self.kept))

    @property
    def twice(self) -> int:
        """Events that are there more than once, and lists."""
        return len(self.kept) - len(set(self.kept)) + len(self.recorded) - len(set(self.recorded))


def kill_under_load(server: Server, victims: Sequence[Victim], between: int = 50) -> Outcome:
    """Kill by SIGKILL, each time after so many further events; what got no answer is sent again with the same key."""
    found = Outcome({name: victims.count(name) for name in set(victims)})
    done = threading.Event()
    threads = [threading.Thread(target=_give, args=(server, number, found, done)) for number in range(_GIVERS)]
    for thread in threads:
        thread.start()
    try:
        for victim in victims:
            aim = len(found.acknowledged) + between
            wait(lambda aim=aim: len(found.acknowledged) > aim, "feedback")
            _kill_worker(server) if victim == "worker" else _kill_all(server, found)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    server.stop()  # so that what waits for the record is written
    with sqlite3.connect(server.folder / "feedback.db") as database:
        found.kept = database.execute("select user, item from feedback").fetchall()
    found.recorded = [request for (request,) in record_rows(server.folder / "feedback.db")]
    return found


def _give(server: Server, number: int, found: Outcome, done: threading.Event) -> None:
    user, count = f"giver{number}", 0
    session = requests.Session()
    while not done.is_set():
        event = {"UserId": user, "ItemId": f"thing{count}", "FeedbackType": "read", "Value": 1}
        try:
            said = session.post(
                f"{server.address}/api/feedback",
                json=event,
                headers={"Idempotency-Key": f"{user}-{count}"},
                timeout=600,
            )
            if said.status_code == 200:
                found.acknowledged.append((user, event["ItemId"]))
                count += 1
            else:
                found.unanswered += 1
            if count % _LIST_EVERY == 0:
                answer = session.get(f"{server.address}/api/recommend/u{number}", timeout=600)
                found.lists.add(answer.headers["x-request-id"])
        except requests.RequestException:
            found.unanswered += 1
            done.wait(_AGAIN_SECONDS)


def _kill_worker(server: Server) -> None:
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait(lambda: victim not in server.worker_pids(), "its end")
    wait(lambda: len(server.worker_pids()) == server.workers, "another worker")


def _kill_all(server: Server, found: Outcome) -> None:
    pids = server.worker_pids()
    server.stop(signal.SIGKILL)
    for pid in pids:
        with suppress(ProcessLookupError):  # it ends by itself
            os.kill(pid, signal.SIGKILL)
    wait(lambda: not any(psutil.pid_exists(pid) for pid in pids), "their end")
    begun = time.monotonic()
    server.start()
    found.restarts.append(time.monotonic() - begun)
