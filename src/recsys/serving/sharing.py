"""Feedback of several servers in the team's MySQL: what this server accepted is sent, what others did is fetched.

A server answers once an event is in its own file, and lists read that file only, so that a database that is away holds
nobody up: what was accepted waits in the file and is counted until the database takes it
(docs/decisions/0021-shared-feedback.md).
"""

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

from recsys.errors import InputError
from recsys.serving.feedback import Event
from recsys.serving.outbox import Outbox

_BATCH = 1000  # events a transaction
_TICK_SECONDS = 0.05
_FETCH_SECONDS = 0.5
_OVERLAP_SECONDS = 5  # a transaction may commit after one that began later: the last seconds are read again
_LONGEST_PAUSE = 5.0
_WAITS = {"connect_timeout": 5, "read_timeout": 20, "write_timeout": 20, "init_command": "set time_zone = '+00:00'"}
_log = logging.getLogger("recsys.serving")


def _text(length: int) -> Any:
    return mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")


_FEEDBACK = sa.Table(
    "recsys_feedback",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
    sa.Column("key", mysql.CHAR(32, charset="ascii", collation="ascii_bin"), nullable=False, unique=True),
    sa.Column("user", _text(512), nullable=False),
    sa.Column("item", _text(512), nullable=False),
    sa.Column("kind", _text(128), nullable=False),
    sa.Column("value", mysql.DOUBLE(asdecimal=False)),
    sa.Column("moment", _text(128), nullable=False),
    sa.Column("received", mysql.DOUBLE(asdecimal=False), nullable=False),  # seconds since 1970, by the server's clock
    sa.Column("request", _text(64)),
    sa.Column("server", mysql.CHAR(16, charset="ascii", collation="ascii_bin"), nullable=False),
    sa.Column(
        "changed", mysql.TIMESTAMP(fsp=6), nullable=False,
        server_default=sa.text("CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)"),
    ),
    sa.UniqueConstraint("changed", "id"),  # an index that stands in the one statement that makes the table
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)  # fmt: skip


TABLE = _FEEDBACK.name


def remove_person(url: str, user: str, *, dry_run: bool = False) -> int:
    """Delete a person's events from the team's database; how many there were.

    Args:
        url: as SQLAlchemy writes it.
        dry_run: count them only.

    Raises:
        InputError: if the database does not answer, or refuses.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=_WAITS)
    theirs = _FEEDBACK.c.user == user
    try:
        with engine.begin() as connection:
            if not sa.inspect(connection).has_table(TABLE):
                return 0
            if dry_run:
                return int(connection.scalar(sa.select(sa.func.count()).where(theirs)) or 0)
            return int(connection.execute(sa.delete(_FEEDBACK).where(theirs)).rowcount)
    except sa.exc.DBAPIError as error:
        raise InputError(
            f"the team's database keeps this person's feedback and cannot be asked ({_first_line(error)}); run forget "
            "again when it answers"
        ) from None


def _first_line(error: Exception) -> str:
    """What went wrong, in the words of the driver: the rest has the statement with ids in it."""
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200]


class Sharing:
    """Copies between a server's file and the team's database, in one thread."""

    def __init__(self, path: Path, url: str) -> None:
        """Take the file of feedback and the URL of the database, as SQLAlchemy writes it; nothing is reached yet."""
        self._outbox = Outbox(path, secrets.token_hex(8))
        self._engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=_WAITS)
        self._is_made = False
        self._told = ""

    def run(self, stop: threading.Event) -> None:
        """Copy until told to stop; a database that is away is tried again, and said in health and metrics."""
        pause, fetched = 0.0, 0.0
        while not stop.wait(pause or _TICK_SECONDS):
            try:
                more = self.send()
                if time.monotonic() - fetched > _FETCH_SECONDS and not more:
                    self.fetch()
                    fetched = time.monotonic()
                self._outbox.tell("")
                pause, self._told = 0.0, ""
            except Exception as error:  # SQLAlchemy, the driver and the file each raise their own
                pause = min(_LONGEST_PAUSE, 2 * pause + 0.2)
                self._say(error)
        self._engine.dispose()
        self._outbox.close()

    def _say(self, error: Exception) -> None:
        reason = _first_line(error)
        if reason != self._told:
            _log.warning("feedback is not shared now: %s", reason)
            self._told = reason
        with suppress(Exception):  # the file may be what fails
            self._outbox.tell(reason)

    def send(self) -> bool:
        """Send the first of what waits; whether there may be more."""
        found = self._outbox.waiting(_BATCH)
        if not found.events:
            return False
        with self._engine.begin() as connection:
            self._make(connection)
            for replaces, events in _runs(found.events, found.replaces):
                connection.execute(_statement(replaces), [self._row(event) for event in events])
        self._outbox.sent(found.last)
        return len(found.events) == _BATCH

    def fetch(self) -> None:
        """Fetch what other servers have accepted since."""
        table = _FEEDBACK.c
        others = sa.select(*(table[name] for name in (*Event._fields, "server", "changed", "id"))).where(
            table.server != self._outbox.name
        )
        page = others
        if self._outbox.seen:
            since = sa.func.timestampadd(sa.text("second"), -_OVERLAP_SECONDS, self._outbox.seen)
            page = others.where(table.changed >= since)
        with self._engine.begin() as connection:
            self._make(connection)
            now = connection.scalar(sa.text("select current_timestamp(6)"))
            while rows := connection.execute(page.order_by(table.changed, table.id).limit(_BATCH)).all():
                self._outbox.receive([Event(*row[:-3]) for row in rows], [row.server for row in rows])
                page = others.where(sa.tuple_(table.changed, table.id) > (rows[-1].changed, rows[-1].id))
        self._outbox.received(str(now))

    def _make(self, connection: Connection) -> None:
        if not self._is_made:
            connection.execute(sa.schema.CreateTable(_FEEDBACK, if_not_exists=True))
            self._is_made = True

    def _row(self, event: Event) -> dict[str, Any]:
        return {**event._asdict(), "server": self._outbox.name}


def _runs(events: Sequence[Event], replaces: Sequence[bool]) -> list[tuple[bool, list[Event]]]:
    """The events in their order, cut where adding and replacing take turns."""
    runs: list[tuple[bool, list[Event]]] = []
    for event, other in zip(events, replaces, strict=True):
        if not runs or runs[-1][0] != other:
            runs.append((other, []))
        runs[-1][1].append(event)
    return runs


def _statement(replaces: bool) -> Any:
    """An event that is there stays as it is, or takes the new value; sending one twice changes nothing."""
    insert = mysql.insert(_FEEDBACK)
    names = ("value", "moment", "received", "server") if replaces else ("key",)
    return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
