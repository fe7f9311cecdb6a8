"""Coordination state of a study, which Optuna does not keep: which search it is in, who is at work, who may finish.

Two tables beside Optuna's: one row a study, a JSON document that one process at a time may change, and one row a
worker, which the worker renews as its heartbeat. All times are the database's: the machines' clocks need not agree.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from filelock import FileLock
from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy import update as update_row
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from recsys.runtime.interruption import uninterrupted
from recsys.runtime.retry import retry_on
from recsys.tuning.database_errors import RETRY_SECONDS, is_transient, retry_database
from recsys.tuning.database_url import is_sqlite, sqlite_path

SearchState = dict[str, Any]
"""The document of a study's row: search (its number), over, base, target, joined, finisher, outcome, key."""

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


class StudyCoordinator:
    """The state that the workers of one study share: its row, and the rows of its workers."""

    def __init__(self, engine: Engine, url: str, study: str, grace: int) -> None:
        """Take the database; tables that are not there are made.

        Args:
            grace: seconds without a heartbeat after which a worker counts as dead.
        """
        self._engine = engine
        self._study = study
        self._grace = timedelta(seconds=grace)
        # sqlite locks the whole file for a writer, Optuna's own included: a lock of ours beside it does not.
        self._file = FileLock(f"{sqlite_path(url)}.lock", timeout=RETRY_SECONDS) if is_sqlite(url) else None
        self._make()

    @contextmanager
    def locked(self) -> Iterator[SearchState]:
        """The study's state, which nobody else may read or change meanwhile; what was changed is kept at the end.

        A stop waits until the lock is free again, so what is done under it has to be brief. A lock whose holder dies
        is free again. Where the database goes away meanwhile the lock is lost: what is done under it has to be right
        even so, if rarely.
        """
        with uninterrupted():
            if self._file is not None:
                with self._file:
                    state = _loaded(self._read_text())
                    before = copy.deepcopy(state)
                    yield state
                    if state != before:
                        self._write(json.dumps(state))
                return
            connection, state = self._lock()
            before = copy.deepcopy(state)
            try:
                yield state
                if state != before:
                    connection.execute(update_row(_STUDIES).where(self._mine()).values(state=json.dumps(state)))
                    connection.commit()
            finally:
                with suppress(SQLAlchemyError):  # a lock that was lost needs no release
                    connection.close()

    def transact(self, change: Callable[[SearchState], T]) -> T:
        """Apply a change, again where the database went away before it was kept; so it must bear repetition."""

        @retry_database
        def once() -> T:
            with self.locked() as state:
                return change(state)

        return once()

    def state(self) -> SearchState:
        """The study's state as it was a moment ago."""
        return _loaded(self._read_text())

    def record_heartbeat(self, worker: str, trial: int | None) -> None:
        """Renew a worker's row; `trial` is the number of the trial that it runs, None between two."""
        with suppress(IntegrityError):  # its other thread was faster
            self._renew(worker, trial)

    @retry_database
    def leave(self, worker: str) -> None:
        """Say that a worker has ended."""
        with self._engine.begin() as connection:
            connection.execute(delete(_WORKERS).where(_WORKERS.c.worker == worker))

    @retry_database
    def alive(self) -> list[Worker]:
        """The workers whose last heartbeat is within the grace."""
        with self._engine.connect() as connection:
            now = connection.execute(select(func.now())).scalar_one().replace(tzinfo=None)
            rows = connection.execute(select(_WORKERS).where(_WORKERS.c.study == self._study)).all()
        return [Worker(row.worker, row.trial) for row in rows if now - row.beat <= self._grace]

    @retry_database
    def _renew(self, worker: str, trial: int | None) -> None:
        with self._engine.begin() as connection:
            row = {"beat": func.now(), "trial": trial}
            done = connection.execute(update_row(_WORKERS).where(_WORKERS.c.worker == worker).values(**row))
            if not done.rowcount:
                connection.execute(insert(_WORKERS).values(worker=worker, study=self._study, **row))

    @retry_database
    def _lock(self) -> tuple[Connection, SearchState]:
        connection = self._engine.connect()
        try:
            row = connection.execute(select(_STUDIES.c.state).where(self._mine()).with_for_update()).scalar_one()
        except BaseException:
            connection.close()
            raise
        return connection, _loaded(row)

    @retry_database
    def _read_text(self) -> str:
        with self._engine.connect() as connection:
            return str(connection.execute(select(_STUDIES.c.state).where(self._mine())).scalar_one())

    @retry_database
    def _write(self, text: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(update_row(_STUDIES).where(self._mine()).values(state=text))

    def _mine(self) -> Any:
        return _STUDIES.c.study == self._study

    def _make(self) -> None:
        # On a server another process may make the tables at this moment.
        may_pass = is_transient if self._file is not None else _is_database_error
        with self._file or nullcontext():
            retry_on(may_pass, RETRY_SECONDS)(_TABLES.create_all)(self._engine)
        with suppress(IntegrityError):  # another process added it
            self._add()

    @retry_database
    def _add(self) -> None:
        with self._engine.begin() as connection:
            if connection.execute(select(_STUDIES.c.study).where(self._mine())).first() is None:
                connection.execute(insert(_STUDIES).values(study=self._study, state="{}"))


def _is_database_error(error: BaseException) -> bool:
    return isinstance(error, DBAPIError)


def _loaded(text: str) -> SearchState:
    state: SearchState = json.loads(text)
    return state
