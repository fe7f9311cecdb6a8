"""The database of record and feedback, as its readers see it: windows, export, and the removal of a person."""

import weakref
from collections.abc import Iterator, Sequence
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

_PAGE = 50_000  # rows
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

TEAM_FEEDBACK = "recsys_feedback"  # as recsys.serving.sharing makes it
Row = Sequence[Any]


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, exc.OperationalError | exc.InterfaceError) and "no such table" not in str(error)


_retry = retry_on(_may_pass, _RETRY_SECONDS)


class Archive:
    """The tables `served` and `feedback` of one server, or those of a team's database, which has feedback only."""

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
        """The lists of a time, [since, until) in seconds since 1970, as pages of rows by `LIST_COLUMNS`."""
        return self._pages("served", since, until)

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
        return found

    def forget(self, user: str) -> dict[str, int]:
        """Delete a person's rows, and their traces in the file; how many rows of each table there were."""
        sqlite = self._url.get_backend_name() == "sqlite"
        found = {}
        with self._engine.connect() as connection:
            if sqlite:
                connection.exec_driver_sql("pragma secure_delete = on")  # what is deleted is overwritten
                connection.commit()
            if sqlalchemy.inspect(self._engine).has_table("outbox"):  # what has not been sent to the team's database
                connection.execute(text(_UNSENT), {"user": user})
            for table in self._there():
                done = connection.execute(text(f"delete from {table} where {self._user} = :user"), {"user": user})
                found[table] = int(done.rowcount)
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
            for page in self._pages(table, since, until):
                arrays = [
                    pa.array(column, field.type) for column, field in zip(zip(*page, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                rows += len(page)
        return rows

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


def _kind(name: str, table: str) -> pa.DataType:
    if name in _BYTES:
        return pa.binary()
    if name in _WHOLE:
        return pa.int64()
    return pa.float64() if name in _NUMBERS and not (name == "moment" and table == "feedback") else pa.string()
