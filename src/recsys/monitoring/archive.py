"""The database of record and feedback, as its readers see it: windows, export, and the removal of a person."""

import weakref
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote as in_url

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
from sqlalchemy import exc, text

from recsys.errors import InputError
from recsys.runtime.files import write_atomically
from recsys.runtime.retry import retry_on
from recsys.serving.record_blocks import Block, line_of, unpack, without

_PAGE = 50_000  # rows
_BLOCKS = 200  # a page, of some 50 lists each, 500 at most
_SERVED_BLOCKS = "served_blocks"
_RETRY_SECONDS = 60.0  # a database that restarts is back by then

LIST_COLUMNS = ("request", "moment", "user", "version", "arm", "policy", "first", "items", "likes", "propensities")
FEEDBACK_COLUMNS = ("key", "user", "item", "kind", "value", "moment", "received", "request")
# Table, its columns, the column of its time in seconds since 1970, and what Parquet keeps.
_TABLES = {
    "served": (LIST_COLUMNS, "moment"),
    "feedback": (FEEDBACK_COLUMNS, "received"),
}
_UNSENT = "delete from outbox where key in (select key from feedback where user = :user)"
_BYTES, _NUMBERS, _WHOLE = ("likes", "propensities"), ("moment", "received", "value"), ("first",)

# Most lists of a server are here, many in a row.
_IN_TIME = (
    f"select id, {', '.join(Block._fields)} from served_blocks where id > :after and latest >= :since "
    "and earliest < :until order by id limit :page"
)
_WITH_USER = "select id from served_blocks where instr(users, :user) > 0"
_BLOCK = f"select {', '.join(Block._fields)} from served_blocks where id = :id"
_REPLACE = f"update served_blocks set {', '.join(f'{name} = :{name}' for name in Block._fields)} where id = :id"
_DELETE = "delete from served_blocks where id = :id"

TEAM_FEEDBACK = "recsys_feedback"  # as recsys.serving.sharing makes it
Row = Sequence[Any]


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, exc.OperationalError | exc.InterfaceError) and "no such table" not in str(error)


_retry = retry_on(_may_pass, _RETRY_SECONDS)


class Archive:
    """What one server's file holds of lists and feedback, or a team's database, which has feedback only.

    Lists of `served` and of `served_blocks` are told as one table, `served`.
    """

    def __init__(self, url: str, feedback: str = "feedback") -> None:
        """Take the URL of the database; of SQLite, a file that is there.

        Args:
            feedback: the name of that table.

        Raises:
            InputError: if the file is not there.
        """
        self._url = sqlalchemy.make_url(url)
        self._names = {"served": "served", "feedback": feedback}
        file = self._url.database
        if self._url.get_backend_name() == "sqlite":
            if not file or not Path(file).is_file():
                raise InputError(
                    f"{file}: feedback and record of a server are expected here; run the entry point serve"
                )
            # A file that goes away later is an error, and not made anew.
            query = {"mode": "rw", "uri": "true"}
            self._url = self._url.set(database=f"file:{in_url(str(Path(file).absolute()))}", query=query)
        self._engine = sqlalchemy.create_engine(self._url, pool_pre_ping=True)
        # As the process ends, too: of SQLite, the last connection that is closed leaves no files beside the file.
        weakref.finalize(self, self._engine.dispose)

    @classmethod
    def of_folder(cls, folder: Path) -> "Archive":
        """That of a server's folder."""
        return cls(f"sqlite:///{folder / 'feedback.db'}")

    @classmethod
    def of_team(cls, url: str) -> "Archive":
        """That of the database by which several servers share their feedback."""
        return cls(url, TEAM_FEEDBACK)

    def lists(self, since: float, until: float) -> Iterator[list[Row]]:
        """The lists of a time, [since, until) in seconds since 1970, as pages of rows by `LIST_COLUMNS`.

        Those of trials come first, and those that an earlier release wrote.
        """
        yield from self._pages("served", since, until)
        yield from self._pages_of_blocks(since, until)

    def feedback(self, since: float, until: float) -> Iterator[list[Row]]:
        """What was received in a time, as pages of rows by `FEEDBACK_COLUMNS`, in the order of its arrival."""
        return self._pages("feedback", since, until)

    def count_of(self, user: str) -> dict[str, int]:
        """How many rows of each table are a person's."""
        found = {}
        with self._engine.connect() as connection:
            for table in self._there():
                count = connection.execute(
                    text(f"select count(*) from {table} where {self._user} = :user"), {"user": user}
                )
                found[table] = int(count.scalar_one())
            if self._columns(_SERVED_BLOCKS):
                blocks = [self._block(connection, at) for at in self._blocks_of(connection, user)]
                found["served"] += sum(row[2] == user for block in blocks if block for row in unpack(block))
        return found

    def forget(self, user: str) -> dict[str, int]:
        """Delete a person's rows, and their traces in the file; how many rows of each table there were."""
        sqlite = self._url.get_backend_name() == "sqlite"
        found = {}
        with self._engine.connect() as connection:
            if sqlite:
                connection.exec_driver_sql("pragma secure_delete = on")  # what is deleted is overwritten
                connection.commit()
            blocks = self._blocks_of(connection, user) if self._columns(_SERVED_BLOCKS) else []
            if sqlalchemy.inspect(self._engine).has_table("outbox"):  # what has not been sent to the team's database
                connection.execute(text(_UNSENT), {"user": user})
            for table in self._there():
                done = connection.execute(text(f"delete from {table} where {self._user} = :user"), {"user": user})
                found[table] = int(done.rowcount)
            for at in blocks:
                found["served"] += self._cut(connection, at, user)
            connection.commit()
            if sqlite:
                connection.exec_driver_sql("pragma wal_checkpoint(truncate)")
        return found

    def export(self, folder: Path, since: float, until: float) -> dict[str, int]:
        """Write both tables' rows of a time as served.parquet and feedback.parquet; how many rows each has."""
        folder.mkdir(parents=True, exist_ok=True)
        return {table: self._export(folder / f"{table}.parquet", table, since, until) for table in _TABLES}

    def _export(self, path: Path, table: str, since: float, until: float) -> int:
        columns, _ = _TABLES[table]
        schema = pa.schema([(name, _kind(name, table)) for name in columns])
        rows = 0
        with write_atomically(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for page in self.lists(since, until) if table == "served" else self.feedback(since, until):
                arrays = [
                    pa.array(column, field.type) for column, field in zip(zip(*page, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                rows += len(page)
        return rows

    def _pages_of_blocks(self, since: float, until: float) -> Iterator[list[Row]]:
        if not _retry(self._columns)(_SERVED_BLOCKS):
            return

        @_retry
        def read(after: int) -> Sequence[Row]:
            with self._engine.connect() as connection:
                given = {"after": after, "since": since, "until": until, "page": _BLOCKS}
                return connection.execute(text(_IN_TIME), given).all()

        after = -1
        while blocks := read(after):
            after = blocks[-1][0]
            lists = chain.from_iterable(unpack(Block(*block[1:])) for block in blocks)
            if page := [row for row in lists if since <= row[1] < until]:
                yield page

    @staticmethod
    def _blocks_of(connection: sqlalchemy.Connection, user: str) -> list[int]:
        """The blocks that can hold lists of a user."""
        return list(connection.execute(text(_WITH_USER), {"user": line_of(user)}).scalars())

    @staticmethod
    def _block(connection: sqlalchemy.Connection, at: int) -> Block | None:
        row = connection.execute(text(_BLOCK), {"id": at}).first()
        return None if row is None else Block(*row)

    def _cut(self, connection: sqlalchemy.Connection, at: int, user: str) -> int:
        """Take a user's lists out of a block; how many there were."""
        block = self._block(connection, at)
        if block is None:
            return 0  # too old by now
        left = without(block, user)
        if left is None:
            connection.execute(text(_DELETE), {"id": at})
        else:
            connection.execute(text(_REPLACE), {"id": at, **left._asdict()})
        return _lists(block) - (_lists(left) if left else 0)

    @property
    def _user(self) -> str:
        return self._engine.dialect.identifier_preparer.quote("user")

    def _there(self) -> list[str]:
        return [table for table in _TABLES if sqlalchemy.inspect(self._engine).has_table(table)]

    def _columns(self, table: str) -> set[str]:
        """The columns of a table; none where it is not there."""
        found = sqlalchemy.inspect(self._engine)
        return {column["name"] for column in found.get_columns(table)} if found.has_table(table) else set()

    def _pages(self, table: str, since: float, until: float) -> Iterator[list[Row]]:
        """Pages by ascending id: one that a restart of the database cuts off is read again, and no row twice."""
        columns, at = _TABLES[table]
        present = _retry(self._columns)(self._names[table])
        if not present:
            return
        quote = self._engine.dialect.identifier_preparer.quote
        # An earlier release made the table with fewer columns.
        names = ", ".join(quote(name) if name in present else f"null as {quote(name)}" for name in columns)
        statement = text(
            f"select id, {names} from {self._names[table]} where id > :after and {at} >= :since and {at} < :until "
            "order by id limit :page"
        )

        @_retry
        def read(after: int) -> Sequence[Row]:
            with self._engine.connect() as connection:
                given = {"after": after, "since": since, "until": until, "page": _PAGE}
                return connection.execute(statement, given).all()

        after = -1
        while page := read(after):
            after = page[-1][0]
            yield [row[1:] for row in page]


def _lists(block: Block) -> int:
    return block.requests.count("\n") + 1


def _kind(name: str, table: str) -> pa.DataType:
    if name in _BYTES:
        return pa.binary()
    if name in _WHOLE:
        return pa.int64()
    return pa.float64() if name in _NUMBERS and not (name == "moment" and table == "feedback") else pa.string()
