"""The record of what was served: one row a list, in the file of the feedback, written beside answering.

Nothing waits for it. A thread writes what has gathered; what cannot be written now is tried again, and counts once by
its request. Where too much waits, further lists are dropped and counted.

The thread has Python's lock as little as can be, for requests wait for it: a row is made where its list is, and what
gathers while the thread writes waits for its next turn, with all that comes until then.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recsys.arrays import Floats
from recsys.serving.feedback import Locked

_MOST_WAITING = 50_000  # lists
_MOST_ROWS = 2_000  # a commit, so that feedback never waits long for its turn
_WRITE_SECONDS = 0.05  # few lists at a time, so that no request has to share the processor with it for long
_RETRY_SECONDS = 1.0
_PRUNE_SECONDS = 60.0
_MOST_PRUNED = 5_000  # a commit
_BUSY_SECONDS = 5
_DAY = 86_400

TABLE = """
create table if not exists served (
    id integer primary key, request text not null unique, moment real not null, user text not null,
    version text not null, arm text not null, policy text not null, first integer not null, items text not null,
    likes blob not null,
    trial text, seconds real, failed integer, beside text, -- null where nothing was on trial
    propensities blob -- null where the server does not explore
);
create index if not exists served_at on served (moment);
"""
# Those that a table of an earlier release has not.
_ADDED = {"trial": "text", "seconds": "real", "failed": "integer", "beside": "text", "propensities": "blob"}
_OF_TRIAL = "create index if not exists served_on_trial on served (user) where trial is not null"
_COLUMNS = (
    "request, moment, user, version, arm, policy, first, items, likes, trial, seconds, failed, beside, propensities"
)
_ADDED_AT_ONCE = 128  # Python's lock is given away and asked for again with each statement, while requests wait for it
_PRUNE = "delete from served where id in (select id from served where moment < ? order by moment limit ?)"


_FOUR_BYTES = np.dtype("<f4")
_Row = tuple[object, ...]


class Impression(NamedTuple):
    """A list as it was answered. No data of persons beyond the ids that a client gave."""

    request: str
    moment: float  # seconds since 1970
    user: str  # empty where the request named none
    version: str
    arm: str
    policy: str
    first: int  # how many items of the ranking stand before the first one
    items: str  # a JSON list of ids, best first
    likes: Floats  # (n,) the probability of a like of each
    trial: str | None = None  # the id of the trial that was under way
    seconds: float | None = None  # to make the list
    failed: bool | None = None  # the arm's version raised; the champion's list was answered, or none
    beside: str | None = None  # in shadow mode, what the challenger would have answered, as JSON
    propensities: Floats | None = None  # (n,) the probability of being in that list, where the server explores


class Recorder:
    """What one process writes of the record."""

    def __init__(
        self, path: Path, retention: float, count: Callable[[str, int], None], most_waiting: int = _MOST_WAITING
    ) -> None:
        """Open or make the table.

        Args:
            path: the file of the feedback.
            retention: days after which a list is deleted.
            count: is told "written" or "dropped", and how many lists.
        """
        self._path = path
        self._retention = retention
        self._count = count
        self._most_waiting = most_waiting
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(f"{path.name}.lock").open("w")
        self._waiting: deque[_Row] = deque()
        self._ends = threading.Event()
        self._pruned = 0.0
        self.problem = ""
        self._thread = threading.Thread(target=self._write_all, name="record", daemon=True)
        self._thread.start()

    def add(self, impression: Impression) -> None:
        """Keep a list for the record. It is written soon, and lost if the process is killed before."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append(_row(impression))
        else:
            self._count("dropped", 1)

    def close(self) -> None:
        """Write what waits, once more, and end the thread."""
        self._ends.set()
        self._thread.join()
        self._lock_file.close()

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        pause = 0.0
        while True:
            ended = self._ends.wait(pause)
            try:
                connection = connection or self._connect()
                left = len(self._waiting)  # what comes meanwhile waits for the next turn
                while left > 0:
                    left -= self._write(connection)
                self._prune(connection)
                self.problem, pause = "", _WRITE_SECONDS
            except (sqlite3.Error, OSError) as error:  # a full disk, a file that is held or gone
                self.problem, pause = f"{type(error).__name__}: {error}", _RETRY_SECONDS
                if connection is not None:
                    with suppress(sqlite3.Error):
                        connection.close()
                connection = None
            if ended:
                break
        if self._waiting:
            self._count("dropped", len(self._waiting))
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        with Locked(self._lock_file):
            connection.execute("pragma journal_mode = wal")
            make_table(connection)
        connection.execute("pragma synchronous = normal")  # a power cut may cost the newest rows, and no time is lost
        return connection

    def _write(self, connection: sqlite3.Connection) -> int:
        """Commit the oldest that wait, and tell how many; they are let go only then."""
        rows = list(islice(self._waiting, _MOST_ROWS))
        groups = [rows[start : start + _ADDED_AT_ONCE] for start in range(0, len(rows), _ADDED_AT_ONCE)]
        with Locked(self._lock_file):
            _commit(connection, [(_add(len(group)), tuple(chain.from_iterable(group))) for group in groups])
        for _ in rows:
            self._waiting.popleft()
        self._count("written", len(rows))
        return len(rows)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Delete what is older than the retention, some at a time."""
        if time.monotonic() - self._pruned < _PRUNE_SECONDS:
            return
        with Locked(self._lock_file):
            gone = _commit(connection, [(_PRUNE, (time.time() - self._retention * _DAY, _MOST_PRUNED))])
        if gone < _MOST_PRUNED:
            self._pruned = time.monotonic()


def _row(one: Impression) -> _Row:
    """What the table holds of a list."""
    return (*one[:8], _bytes(one.likes), *one[9:13], _bytes(one.propensities))


def _bytes(numbers: Floats | None) -> bytes | None:
    return None if numbers is None else np.asarray(numbers, _FOUR_BYTES).tobytes()


def make_table(connection: sqlite3.Connection) -> None:
    """The table and its indexes, in a file of an earlier release too."""
    connection.executescript(TABLE)
    there = {row[1] for row in connection.execute("pragma table_info(served)")}
    for name, kind in _ADDED.items():
        if name not in there:
            connection.execute(f"alter table served add column {name} {kind}")
    connection.execute(_OF_TRIAL)


@cache
def _add(rows: int) -> str:
    """The statement that adds so many rows."""
    places = ", ".join(["(" + ", ".join("?" * len(Impression._fields)) + ")"] * rows)
    return f"insert into served ({_COLUMNS}) values {places} on conflict (request) do nothing"


def _commit(connection: sqlite3.Connection, statements: Sequence[tuple[str, tuple[object, ...]]]) -> int:
    """Execute in one transaction, which a single statement is by itself; how many rows it changed."""
    before = connection.total_changes
    if len(statements) == 1:
        connection.execute(*statements[0])
        return connection.total_changes - before
    connection.execute("begin immediate")
    try:
        for statement, values in statements:
            connection.execute(statement, values)
        connection.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("rollback")
        raise
    return connection.total_changes - before
