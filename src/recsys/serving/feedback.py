"""Feedback, in one SQLite file that all workers share.

Where a team's database keeps the feedback of several servers too, recsys.serving.sharing copies between the two.
Feedback is acknowledged once it is on the disk. Each process has one thread that writes: what arrives while it commits
goes together into its next commit. Every list reads its user's rows anew, so that all workers know of a rating at once.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from recsys.serving.locks import Locked

RATING = "rating"  # the kind of feedback whose value is one
_MOST_ROWS = 5_000  # a commit
_BUSY_SECONDS = 5

FEEDBACK_TABLES = """
create table if not exists feedback (
    id integer primary key, key text not null unique, user text not null, item text not null, kind text not null,
    value real, moment text not null, received real not null, request text,
    origin text -- the server that accepted it, null for this one
);
create index if not exists feedback_of_user on feedback (user, id);
"""
_ADD = """insert into feedback (key, user, item, kind, value, moment, received, request)
values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (key) do nothing"""
_REPLACE = """insert into feedback (key, user, item, kind, value, moment, received, request)
values (?, ?, ?, ?, ?, ?, ?, ?)
on conflict (key) do update set
value = excluded.value, moment = excluded.moment, received = excluded.received, origin = null"""
_OF_USER = f"select item, case kind when '{RATING}' then value end from feedback where user = ? order by id"


Given = tuple[str, float | None]
"""What a list sees of an event: the item, and the rating if it is one."""


class Event(NamedTuple):
    """One row of feedback; a key that is there counts once."""

    key: str
    user: str
    item: str
    kind: str
    value: float | None
    moment: str
    received: float
    request: str | None


class UnavailableError(Exception):
    """The feedback could not be written; nothing of it counts."""


class _Waiting(NamedTuple):
    events: Sequence[Event]
    replace: bool
    done: Callable[[int | Exception], None]


class FeedbackStore:
    """The file, as one process uses it."""

    def __init__(self, path: Path, most_waiting: int = 10_000) -> None:
        """Open or make the file.

        Args:
            most_waiting: events that may wait for the disk; more are refused.
        """
        self.path = path
        self._most_waiting = most_waiting
        self._reading, self._lock_file = open_shared(path)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting = 0
        self.problem = ""
        self._thread = threading.Thread(target=self._write_all, name="feedback", daemon=True)
        self._thread.start()

    def of_user(self, user: str) -> list[Given]:
        """What a user gave, oldest first: item and rating, None for another event; nothing if it cannot be read."""
        try:
            return self._reading.execute(_OF_USER, (user,)).fetchall()
        except sqlite3.Error as error:  # lists go on
            self.problem = f"{type(error).__name__}: {error}"
            return []

    def events_of_user(self, user: str, kind: str | None, most: int) -> list[Event]:
        """The newest of a user's events, the newest first; of one kind or of all."""
        rows = self._reading.execute(
            "select key, user, item, kind, value, moment, received, request from feedback "
            "where user = ? and (? is null or kind = ?) order by id desc limit ?",
            (user, kind, kind, most),
        )
        return [Event(*row) for row in rows]

    def sharing(self) -> tuple[int, str]:
        """Events that wait for the team's database, and what is wrong with that; (0, "") where there is none."""
        try:
            rows = self._reading.execute("select waiting, problem from sharing, (select count(*) waiting from outbox)")
            found = rows.fetchone()
        except sqlite3.Error:  # without a team's database there are no such tables
            return 0, ""
        return found or (0, "")

    async def add(self, events: Sequence[Event], *, replace: bool = False) -> int:
        """Write events, wait until they are on the disk; returns how many were new.

        Args:
            replace: the last value of a key counts, not the first.

        Raises:
            UnavailableError: if too many wait, or the file cannot be written.
        """
        if self._waiting + len(events) > self._most_waiting:
            raise UnavailableError(f"{self._waiting:,} events wait for the disk already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def settle(outcome: int | Exception) -> None:
            self._waiting -= len(events)
            if future.done():
                return  # the client went away
            if isinstance(outcome, Exception):
                future.set_exception(UnavailableError(str(outcome)))
            else:
                future.set_result(outcome)

        def done(outcome: int | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, outcome)

        self._waiting += len(events)
        self._queue.put(_Waiting(events, replace, done))
        return await future

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._reading.close()

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        ended = False
        while not ended:
            group, ended = self._next_group()
            if not group:
                continue
            try:
                connection = connection or _connect(self.path)
                with Locked(self._lock_file):
                    counts = _commit(connection, group)
                self.problem = ""
            except Exception as error:  # also of a fault of ours: without this thread nothing would be kept any more
                counts = [error] * len(group)
                self.problem = f"{type(error).__name__}: {error}"
                if connection is not None:
                    with suppress(sqlite3.Error):
                        connection.close()
                connection = None
            for waiting, count in zip(group, counts, strict=True):
                waiting.done(count)
        if connection is not None:
            connection.close()

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """What waits, once there is something; and whether it is the last."""
        group: list[_Waiting] = []
        rows = 0
        try:
            found = self._queue.get()
            while found is not None:
                group.append(found)
                rows += len(found.events)
                if rows >= _MOST_ROWS:
                    return group, False
                found = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, True


def open_shared(path: Path) -> tuple[sqlite3.Connection, IO[str]]:
    """A connection to the file for a process that is no worker, and the file to lock while it writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file = path.with_name(f"{path.name}.lock").open("w")
    with Locked(lock_file):
        connection = _connect(path)
        _make_tables(connection)
    return connection, lock_file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")  # a commit that returns is on the disk
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.executescript(FEEDBACK_TABLES)
    if "origin" not in {row[1] for row in connection.execute("pragma table_info(feedback)")}:
        connection.execute("alter table feedback add column origin text")  # made by an earlier release


def _commit(connection: sqlite3.Connection, group: Sequence[_Waiting]) -> list[int | Exception]:
    """Write all in one transaction; how many rows of each were new."""
    counts: list[int | Exception] = []
    connection.execute("begin immediate")
    try:
        for waiting in group:
            counts.append(connection.executemany(_REPLACE if waiting.replace else _ADD, waiting.events).rowcount)
        connection.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("rollback")
        raise
    return counts
