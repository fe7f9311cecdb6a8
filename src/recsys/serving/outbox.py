"""The side of sharing feedback that is in this server's own file: what waits to be sent, and what came from others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recsys.serving.feedback import Event, open_shared
from recsys.serving.locks import Locked

_COLUMNS = ", ".join(Event._fields)
# What waits stands there from the same commit on as the event, so that nothing that was acknowledged is left out.
_TABLES = """
create table if not exists outbox (id integer primary key autoincrement, key text not null, replaces integer not null);
create table if not exists sharing (name text not null, seen text not null, problem text not null);
create trigger if not exists feedback_added after insert on feedback when new.origin is null
begin insert into outbox (key, replaces) values (new.key, 0); end;
create trigger if not exists feedback_replaced after update on feedback when new.origin is null
begin insert into outbox (key, replaces) values (new.key, 1); end;
"""
_RECEIVE = f"""insert into feedback ({_COLUMNS}, origin) values (?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (key) do update set
value = excluded.value, moment = excluded.moment, received = excluded.received, origin = excluded.origin
where not exists (select 1 from outbox where outbox.key = feedback.key)"""  # what waits is newer, and is yet to be sent


class Waiting(NamedTuple):
    """Events to be sent, in the order in which they came, and up to which place of the outbox they reach."""

    events: list[Event]
    replaces: list[bool]
    last: int


class Outbox:
    """What one server has not sent yet."""

    def __init__(self, path: Path, name: str) -> None:
        """Open the server's file; at its first opening all of its feedback waits.

        Args:
            name: of this server, where it has none yet.
        """
        self._connection, self._lock_file = open_shared(path)
        with Locked(self._lock_file):
            self._connection.executescript(_TABLES)
            if not self._connection.execute("select 1 from sharing").fetchall():
                with self._connection:
                    self._connection.execute("begin immediate")
                    self._connection.execute("insert into sharing values (?, '', '')", (name,))
                    self._connection.execute(
                        "insert into outbox (key, replaces) "
                        "select key, 0 from feedback where origin is null order by id"
                    )
        self.name, self.seen, self._problem = self._connection.execute("select * from sharing").fetchone()

    def waiting(self, most: int) -> Waiting:
        """The first events that wait."""
        columns = ", ".join(f"feedback.{name}" for name in Event._fields)
        rows = self._connection.execute(
            f"select {columns}, outbox.replaces, outbox.id from outbox join feedback using (key) "
            "order by outbox.id limit ?",
            (most,),
        ).fetchall()
        return Waiting([Event(*row[:8]) for row in rows], [bool(row[8]) for row in rows], rows[-1][9] if rows else 0)

    def sent(self, last: int) -> None:
        """Let go of what was sent, up to a place."""
        with Locked(self._lock_file):
            self._connection.execute("delete from outbox where id <= ?", (last,))

    def receive(self, events: Sequence[Event], origins: Sequence[str]) -> None:
        """Keep what other servers accepted."""
        with Locked(self._lock_file), self._connection:
            self._connection.execute("begin immediate")
            rows = [(*event, origin) for event, origin in zip(events, origins, strict=True)]
            self._connection.executemany(_RECEIVE, rows)

    def received(self, seen: str) -> None:
        """All is known that others accepted up to a moment of the database."""
        with Locked(self._lock_file):
            self._connection.execute("update sharing set seen = ?", (seen,))
        self.seen = seen

    def tell(self, problem: str) -> None:
        """Say what is wrong with the team's database; health and metrics show it."""
        if problem != self._problem:
            with Locked(self._lock_file):
                self._connection.execute("update sharing set problem = ?", (problem,))
            self._problem = problem

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._lock_file.close()
