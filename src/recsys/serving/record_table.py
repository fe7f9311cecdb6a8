"""The tables of what was served, in the file of the feedback, as the one who writes them sees them.

Lists of a trial are rows of `served`, which its judge looks up by user; all others stand in `served_blocks`, many in
a row (recsys.serving.record_blocks). Before blocks were, all lists were rows of `served`: those stay there.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO

from recsys.serving.locks import Locked

_BUSY_SECONDS = 5
_ADDED_AT_ONCE = 24  # rows of a statement: a third of a millisecond
_REST_SECONDS = 0.001  # between two of them, in which requests have the processor

TABLE = """
create table if not exists served (
    id integer primary key, request text not null unique, moment real not null, user text not null,
    version text not null, arm text not null, policy text not null, first integer not null, items text not null,
    likes blob not null,
    trial text, seconds real, failed integer, beside text, -- null where nothing was on trial
    propensities blob -- null where the server does not explore
);
create index if not exists served_at on served (moment);
create table if not exists served_blocks (
    id integer primary key, request text not null unique, earliest real not null, latest real not null,
    requests text not null, moments blob not null, users text not null, kinds text not null, kind_of blob not null,
    items text not null, sizes blob not null, likes blob not null, propensities blob -- as in served
);
create index if not exists served_blocks_at on served_blocks (latest);
"""
# Those that a table of an earlier release has not.
_ADDED = {"trial": "text", "seconds": "real", "failed": "integer", "beside": "text", "propensities": "blob"}
_OF_TRIAL = "create index if not exists served_on_trial on served (user) where trial is not null"
_COLUMNS = (
    "request, moment, user, version, arm, policy, first, items, likes, trial, seconds, failed, beside, propensities"
)
_PLACES = f"({', '.join('?' * len(_COLUMNS.split(', ')))})"
_PRUNE = "delete from served where id in (select id from served where moment < ? order by moment limit ?)"
_BLOCK_COLUMNS = (
    "request, earliest, latest, requests, moments, users, kinds, kind_of, items, sizes, likes, propensities"
)
_ADD_BLOCK = (
    f"insert into served_blocks ({_BLOCK_COLUMNS}) values ({', '.join('?' * len(_BLOCK_COLUMNS.split(', ')))}) "
    "on conflict (request) do nothing"
)
_PRUNE_BLOCKS = (
    "delete from served_blocks where id in (select id from served_blocks where latest < ? order by latest limit ?)"
)
_LISTS_OF_BLOCK = 50  # about, at a thousand lists a second

Row = tuple[str | float | bytes | None, ...]
"""What a table holds of a list or of a block: its columns in their order, without the first."""
Message = tuple[Row | None, Sequence[Row]]
"""What a worker hands over at once: a block, if there is one, and rows of `served`."""


class WriteError(Exception):
    """Nothing of it was written, for the reason given: a full disk, a file that is held or gone."""


class Table:
    """Writes rows and deletes old ones, each call in one transaction; opens the file when it is first needed."""

    def __init__(self, path: Path) -> None:
        """Take the file of the feedback."""
        self._path = path
        self._open: tuple[sqlite3.Connection, IO[str]] | None = None

    def add(self, messages: Sequence[Message]) -> None:
        """Write messages, or make the tables at least; what is there counts once, by its request. Raises WriteError."""
        rows = [row for _, given in messages for row in given]
        groups = [rows[start : start + _ADDED_AT_ONCE] for start in range(0, len(rows), _ADDED_AT_ONCE)]
        self._write(
            [(_ADD_BLOCK, block) for block, _ in messages if block is not None]
            + [(_add(len(group)), tuple(chain.from_iterable(group))) for group in groups]
        )

    def prune(self, before: float, most: int) -> bool:
        """Delete some lists that are older than a moment; whether there may be more. Raises WriteError.

        Args:
            most: about how many at most; those of one block go together, once the last one is older.
        """
        most_blocks = most // _LISTS_OF_BLOCK
        rows, blocks = self._write([(_PRUNE, (before, most))]), self._write([(_PRUNE_BLOCKS, (before, most_blocks))])
        return rows >= most or blocks >= most_blocks

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            connection, lock_file = self._open
            with suppress(sqlite3.Error):
                connection.close()
            lock_file.close()
        self._open = None

    def _write(self, statements: Sequence[tuple[str, Row]]) -> int:
        try:
            self._open = self._open or _connect(self._path)
            connection, lock_file = self._open
            if not statements:
                return 0
            with Locked(lock_file):
                return _commit(connection, statements)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise WriteError(f"{type(error).__name__}: {error}") from error


def _connect(path: Path) -> tuple[sqlite3.Connection, IO[str]]:
    """The file, with its table, and the file to lock while it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file = path.with_name(f"{path.name}.lock").open("w")
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    with Locked(lock_file):
        connection.execute("pragma journal_mode = wal")
        make_table(connection)
    connection.execute("pragma synchronous = normal")  # a power cut may cost the newest rows, and no time is lost
    return connection, lock_file


def make_table(connection: sqlite3.Connection) -> None:
    """The tables and their indexes, in a file of an earlier release too."""
    connection.executescript(TABLE)
    there = {row[1] for row in connection.execute("pragma table_info(served)")}
    for name, kind in _ADDED.items():
        if name not in there:
            connection.execute(f"alter table served add column {name} {kind}")
    connection.execute(_OF_TRIAL)


@cache
def _add(rows: int) -> str:
    """The statement that adds so many rows."""
    return f"insert into served ({_COLUMNS}) values {', '.join([_PLACES] * rows)} on conflict (request) do nothing"


def _commit(connection: sqlite3.Connection, statements: Sequence[tuple[str, Row]]) -> int:
    """Execute in one transaction, which a single statement is by itself; how many rows it changed."""
    before = connection.total_changes
    if len(statements) == 1:
        connection.execute(*statements[0])
        return connection.total_changes - before
    connection.execute("begin immediate")
    try:
        for number, (statement, values) in enumerate(statements):
            if number and statement is not _ADD_BLOCK:
                time.sleep(_REST_SECONDS)
            connection.execute(statement, values)
        connection.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("rollback")
        raise
    return connection.total_changes - before
