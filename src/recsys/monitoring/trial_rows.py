"""What the record and the feedback hold of a trial, read on from where the last look ended."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from recsys.runtime.retry import retry_on

_PAGE = 20_000  # rows
_RETRY_SECONDS = 20.0
_COLUMNS = ("trial", "seconds", "failed", "beside")


class ListRow(NamedTuple):
    """A list of the trial; its items only where another was made beside it."""

    id: int
    moment: float
    user: str
    arm: str
    policy: str
    seconds: float | None
    failed: bool
    empty: bool
    beside: str | None
    items: str | None


class Shown(NamedTuple):
    """A list as feedback finds it."""

    request: str
    moment: float
    arm: str
    items: frozenset[str]


class EventRow(NamedTuple):
    """An event of feedback."""

    id: int
    user: str
    item: str
    kind: str
    value: float | None
    received: float
    request: str | None


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, exc.OperationalError) and "no such" not in str(error)


_retry = retry_on(_may_pass, _RETRY_SECONDS)


class TrialRows:
    """The file of one server, as the judge of a trial reads it."""

    def __init__(self, path: Path, trial: str) -> None:
        """Take the file, which may not be there yet."""
        self._path = path
        self._trial = trial
        self._engine = sa.create_engine(f"sqlite:///{path}")

    def is_there(self) -> bool:
        """Whether a server has written lists that can be of a trial."""
        if not self._path.is_file():
            return False
        inspector = sa.inspect(self._engine)
        if not (inspector.has_table("served") and inspector.has_table("feedback")):
            return False
        return set(_COLUMNS) <= {column["name"] for column in inspector.get_columns("served")}

    def lists(self, after: int) -> Iterator[ListRow]:
        """The trial's lists with ids above one, in their order."""
        statement = sa.text(
            "select id, moment, user, arm, policy, seconds, failed, items = '[]', beside, "
            "case when beside is null then null else items end from served "
            "where trial = :trial and id > :after order by id limit :page"
        )
        while page := self._read(statement, trial=self._trial, after=after, page=_PAGE):
            after = page[-1][0]
            for row in page:
                identity, moment, user, arm, policy, seconds, failed, empty, *beside = row
                yield ListRow(identity, moment, user, arm, policy, seconds, bool(failed), bool(empty), *beside)

    def events(self, after: int, since: float) -> Iterator[EventRow]:
        """Events with ids above one, and those that were replaced since a time of this server's clock."""
        statement = sa.text(
            "select id, user, item, kind, value, received, request from feedback "
            "where id > :after or (id > :from and received > :since) order by id limit :page"
        )
        # Pages go by id: those that were replaced come first.
        start = 0
        while page := self._read(statement, after=max(after, start), since=since, page=_PAGE, **{"from": start}):
            start = page[-1][0]
            for row in page:
                yield EventRow(*row)

    def shown_to(self, user: str) -> list[Shown]:
        """The trial's lists of a user, the oldest first."""
        statement = sa.text(
            "select request, moment, arm, items from served "
            "where user = :user and trial = :trial and trial is not null order by id"
        )
        rows = self._read(statement, user=user, trial=self._trial)
        return [Shown(row[0], row[1], row[2], frozenset(json.loads(row[3]))) for row in rows]

    def _read(self, statement: sa.TextClause, **values: object) -> list[tuple]:  # type: ignore[type-arg]
        @_retry
        def read() -> list[tuple]:  # type: ignore[type-arg]
            with self._engine.connect() as connection:
                return [tuple(row) for row in connection.execute(statement, values)]

        return read()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()
