"""What Optuna does not keep of a study: the search it is in, who is at work, and who may finish.

Two tables beside Optuna's: a row a study, which is a JSON document that one process at a time may change, and a row
a worker, which it renews as a sign of life. All times are the database's: the machines' clocks need not agree.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from filelock import FileLock
from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy import update as update_row
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from recsys.tuning.database_url import is_sqlite, sqlite_path
from recsys.tuning.storage import PATIENCE_SECONDS, patiently

State = dict[str, Any]
T = TypeVar("T")

_TABLES = MetaData()
_STUDIES = Table(
    "recsys_studies",
    _TABLES,
    Column("study", String(255), primary_key=True),
    Column("state", Text, nullable=False),
)
_WORKERS = Table(
    "recsys_workers",
    _TABLES,
    Column("worker", String(120), primary_key=True),
    Column("study", String(255), nullable=False),
    Column("beat", DateTime, nullable=False),
    Column("trial", Integer),
)


@dataclass(frozen=True)
class Worker:
    """A process that is at work for a study; `trial` is what it runs, None between two."""

    name: str
    trial: int | None


class Ledger:
    """One study's rows."""

    def __init__(self, engine: Engine, url: str, study: str, grace: int) -> None:
        """Take the database; tables that are not there are made.

        Args:
            grace: seconds without a sign of life after which a worker counts as dead.
        """
        self._engine = engine
        self._study = study
        self._grace = timedelta(seconds=grace)
        # sqlite locks the whole file for a writer, Optuna's own included: a lock of ours beside it does not.
        self._file = FileLock(f"{sqlite_path(url)}.lock", timeout=PATIENCE_SECONDS) if is_sqlite(url) else None
        self._make()

    @contextmanager
    def locked(self) -> Iterator[State]:
        """The study's state, and nobody else may read or change it meanwhile; what was changed is kept at the end.

        A lock whose holder dies is free again. Where the database goes away meanwhile the lock is lost: what is done
        under it has to be right even so, if rarely.
        """
        if self._file is not None:
            with self._file:
                text = patiently(self._read_text)
                state = _loaded(text)
                before = copy.deepcopy(state)
                yield state
                if state != before:
                    patiently(lambda: self._write(json.dumps(state)))
            return
        connection, state = patiently(self._lock)
        before = copy.deepcopy(state)
        try:
            yield state
            if state != before:
                connection.execute(update_row(_STUDIES).where(self._mine()).values(state=json.dumps(state)))
                connection.commit()
        finally:
            with suppress(SQLAlchemyError):  # a lock that was lost needs no release
                connection.close()

    def transact(self, change: Callable[[State], T]) -> T:
        """Apply a change, again where the database went away before it was kept; so it must bear repetition."""

        def once() -> T:
            with self.locked() as state:
                return change(state)

        return patiently(once)

    def state(self) -> State:
        """The study's state as it was a moment ago."""
        return _loaded(patiently(self._read_text))

    def beat(self, worker: str, trial: int | None) -> None:
        """Give a sign of life."""

        def renew() -> None:
            with self._engine.begin() as connection:
                row = {"beat": func.now(), "trial": trial}
                done = connection.execute(update_row(_WORKERS).where(_WORKERS.c.worker == worker).values(**row))
                if not done.rowcount:
                    connection.execute(insert(_WORKERS).values(worker=worker, study=self._study, **row))

        with suppress(IntegrityError):  # its other thread was faster
            patiently(renew)

    def leave(self, worker: str) -> None:
        """Say that a worker has ended."""

        def remove() -> None:
            with self._engine.begin() as connection:
                connection.execute(delete(_WORKERS).where(_WORKERS.c.worker == worker))

        patiently(remove)

    def alive(self) -> list[Worker]:
        """The workers that gave a sign of life lately."""

        def read() -> list[Worker]:
            with self._engine.connect() as connection:
                now = connection.execute(select(func.now())).scalar_one().replace(tzinfo=None)
                rows = connection.execute(select(_WORKERS).where(_WORKERS.c.study == self._study)).all()
            return [Worker(row.worker, row.trial) for row in rows if now - row.beat <= self._grace]

        return patiently(read)

    def _lock(self) -> tuple[Connection, State]:
        connection = self._engine.connect()
        try:
            row = connection.execute(select(_STUDIES.c.state).where(self._mine()).with_for_update()).scalar_one()
        except BaseException:
            connection.close()
            raise
        return connection, _loaded(row)

    def _read_text(self) -> str:
        with self._engine.connect() as connection:
            return str(connection.execute(select(_STUDIES.c.state).where(self._mine())).scalar_one())

    def _write(self, text: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(update_row(_STUDIES).where(self._mine()).values(state=text))

    def _mine(self) -> Any:
        return _STUDIES.c.study == self._study

    def _make(self) -> None:
        limit = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                _TABLES.create_all(self._engine)
                break
            except DBAPIError:  # another process makes them at this moment
                if time.monotonic() > limit or self._file is not None:
                    raise
                time.sleep(0.2)

        def add() -> None:
            with self._engine.begin() as connection:
                if connection.execute(select(_STUDIES.c.study).where(self._mine())).first() is None:
                    connection.execute(insert(_STUDIES).values(study=self._study, state="{}"))

        with suppress(IntegrityError):  # another process added it
            patiently(add)


def _loaded(text: str) -> State:
    state: State = json.loads(text)
    return state
