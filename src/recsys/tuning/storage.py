"""Optuna's storage on a database: opened with errors that say what to do, and patient with lost connections."""

import copy
import functools
import json
import random
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc

from recsys.errors import InputError
from recsys.tuning.database_url import is_sqlite, place, port, scrubbed, sqlite_path

CONNECT_SECONDS = 4
PATIENCE_SECONDS = 90.0  # a database that restarts is back by then
_MOST_RETRIES = 5  # of a trial whose worker died: its settings may be what kills it
_MAKING_SECONDS = 30.0
_ANSWER_SECONDS = 60
_GREETING_SECONDS = 3
_CONNECTIONS = 4  # of one worker: its trial, its heartbeat, its lock, and one to spare
# MySQL's and MariaDB's: record changed, too many connections, shutting down, lock wait, deadlock; then PyMySQL's
# for a server that is away.
_PASSING = {1020, 1040, 1053, 1077, 1205, 1213, 2003, 2006, 2013, 2014, 2055}
_BEING_MADE = {1007, 1050, 1061, 1062, 1684}  # somebody else makes the same tables at this moment
_NO_DATABASE = {1044, 1049}

_FINITE_VALUE = models.TrialValueModel.TrialValueType.FINITE

T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed when it is made again: a deadlock, a lock, a lost connection."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, exc.TimeoutError | exc.PendingRollbackError | ConnectionRefusedError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    return error.connection_invalidated or _number(error) in _PASSING or "database is locked" in str(error.orig)


def patiently(call: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """The call's answer; made again, ever more slowly, for as long as what goes wrong may pass."""
    limit, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            return call()
        except Exception as error:
            if not is_passing(error) or time.monotonic() + pause > limit:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))  # several that met in a deadlock should not meet again
        pause = min(2 * pause, 2.0)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return patiently(lambda: method(*arguments, **named))

    return wrapped


class PatientStorage(RDBStorage):
    """Optuna's own, with every call made again after a deadlock or a lost connection.

    Each may be repeated although it was carried out already: a parameter or a heartbeat is there then, a state is
    final, and a trial made twice has no heartbeat of its worker and counts as one whose worker died. What Optuna
    writes of a trial in dozens of queries, each call in a transaction of its own, is written here in a few.
    """

    _known: FrozenTrial | None = None
    _held: list[dict[str, Any]] | None = None

    create_new_study = _patient(RDBStorage.create_new_study)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patient(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _patient(RDBStorage.get_study_id_from_name)
    get_study_directions = _patient(RDBStorage.get_study_directions)
    get_study_user_attrs = _patient(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _patient(RDBStorage.get_study_system_attrs)
    set_trial_state_values = _patient(RDBStorage.set_trial_state_values)
    set_trial_intermediate_value = _patient(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _patient(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _patient(RDBStorage.set_trial_system_attr)
    _get_trials = _patient(RDBStorage._get_trials)
    _get_best_trial_id = _patient(RDBStorage._get_best_trial_id)
    record_heartbeat = _patient(RDBStorage.record_heartbeat)
    _get_stale_trial_ids = _patient(RDBStorage._get_stale_trial_ids)

    def know(self, trial: FrozenTrial) -> None:
        """Answer the next question for this trial, as Optuna asks it on starting it, without the database."""
        self._known = trial

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        made: FrozenTrial = patiently(lambda: super(PatientStorage, self)._create_new_trial(study_id, template_trial))
        self._known = copy.deepcopy(made)
        return made

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial, in six queries unless it is known."""
        known, self._known = self._known, None
        if known is not None and known._trial_id == trial_id:
            return known
        return patiently(lambda: super(PatientStorage, self).get_trial(trial_id))

    def _set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution, previous: BaseDistribution | None
    ) -> None:
        if self._held is None:
            patiently(
                lambda: super(PatientStorage, self)._set_trial_param(trial_id, name, value, distribution, previous)
            )
        else:
            text = distribution_to_json(distribution)
            row = {"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": text}
            self._held.append(row)

    @contextmanager
    def params_together(self, trial_id: int) -> Iterator[None]:
        """Writes the parameters that are suggested for a trial inside the block at once, at its end."""
        self._held = []
        try:
            yield
            rows = self._held
        finally:
            self._held = None

        def write() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_missing(connection, models.TrialParamModel, trial_id, "param_name", rows)

        if rows:
            patiently(write)

    def add_intermediate_values(self, trial_id: int, values: Mapping[int, float]) -> None:
        """Add the values of several steps at once, all finite; those that are there are left as they are."""

        def add() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_steps(connection, trial_id, values)

        patiently(add)

    def finish(
        self,
        trial_id: int,
        state: TrialState,
        value: float | None,
        steps: Mapping[int, float],
        attributes: Mapping[str, Any],
    ) -> None:
        """End a trial with what is known of it, all of it or nothing; raises UpdateFinishedTrialError."""
        table = models.TrialUserAttributeModel
        # A trial that is tried again begins with what was written of the first try.
        inherited = sqlalchemy.delete(table).where(table.trial_id == trial_id, table.key.in_(attributes))
        notes = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(to)} for key, to in attributes.items()]
        values = [{"trial_id": trial_id, "objective": 0, "value": value, "value_type": _FINITE_VALUE}]
        ended = sqlalchemy.update(models.TrialModel).where(models.TrialModel.trial_id == trial_id)

        def end() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_steps(connection, trial_id, steps)
                connection.execute(inherited)
                connection.execute(sqlalchemy.insert(table), notes)
                if value is not None:
                    connection.execute(sqlalchemy.insert(models.TrialValueModel), values)
                connection.execute(ended.values(state=state, datetime_complete=datetime.now()))

        patiently(end)

    def begin(self, trial_id: int) -> int:
        """Give a new trial's first sign of life; how many of its study were made before it and have not failed."""
        table = models.TrialModel
        study = sqlalchemy.select(table.study_id).where(table.trial_id == trial_id).scalar_subquery()
        before = table.study_id == study, table.trial_id < trial_id, table.state != TrialState.FAIL
        query = sqlalchemy.select(sqlalchemy.func.count()).select_from(table).where(*before)

        def ask() -> int:
            with self.engine.begin() as connection:
                _add_missing(connection, models.TrialHeartbeatModel, trial_id, "trial_id", [{"trial_id": trial_id}])
                return int(connection.execute(query).scalar_one())

        try:
            return patiently(ask)
        except exc.IntegrityError:  # another worker, which saw a trial without one, gave it at the same moment
            return patiently(ask)

    def _check_open(self, connection: sqlalchemy.Connection, trial_id: int) -> None:
        """Keep others from ending the trial meanwhile; raises UpdateFinishedTrialError where they have."""
        query = sqlalchemy.select(models.TrialModel.state).where(models.TrialModel.trial_id == trial_id)
        self.check_trial_is_updatable(trial_id, connection.execute(query.with_for_update()).scalar_one())

    def has_heartbeat(self, trial_id: int) -> bool:
        """Whether anybody ever gave a sign of life for a trial."""
        query = sqlalchemy.select(models.TrialHeartbeatModel).where(models.TrialHeartbeatModel.trial_id == trial_id)

        def ask() -> bool:
            with self.engine.connect() as connection:
                return connection.execute(query).first() is not None

        return patiently(ask)


def _add_steps(connection: sqlalchemy.Connection, trial_id: int, values: Mapping[int, float]) -> None:
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    rows = [
        {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": finite}
        for step, value in values.items()
    ]
    _add_missing(connection, models.TrialIntermediateValueModel, trial_id, "step", rows)


def _add_missing(
    connection: sqlalchemy.Connection, model: Any, trial_id: int, key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Add the rows of a trial whose key is not there: an answer may have been lost and the call made again."""
    if not rows:
        return
    known = set(connection.execute(sqlalchemy.select(getattr(model, key)).where(model.trial_id == trial_id)).scalars())
    missing = [row for row in rows if row[key] not in known]
    if missing:
        connection.execute(sqlalchemy.insert(model), missing)


def _retry() -> RetryHeartbeatStaleTrialCallback:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)


RETRY = _retry()
"""Queues what a failed trial tried once more, for as often as that may be."""


def open_storage(url: str, *, heartbeat: int, grace: int) -> PatientStorage:
    """The storage behind an SQLAlchemy URL; database and tables are made where they are not there.

    Args:
        heartbeat: seconds between the signs of life of a running trial.
        grace: seconds without one after which a trial counts as abandoned and is tried again.

    Raises:
        InputError: within ten seconds where nothing answers, naming the place and never the password.
    """
    with explained(url):
        if is_sqlite(url):
            folder = Path(sqlite_path(url)).parent
            if not folder.is_dir():
                raise InputError(f"parameter 'storage': the folder of an sqlite file must exist, got {str(folder)!r}")
        else:
            parts = urlsplit(url)
            at = parts.hostname or "", port(parts)
            patiently(lambda: socket.create_connection(at, CONNECT_SECONDS).close(), CONNECT_SECONDS)
            _make_database(url)
        making = FileLock(f"{sqlite_path(url)}.lock", timeout=_MAKING_SECONDS) if is_sqlite(url) else nullcontext()
        with making:
            return _open(url, heartbeat, grace)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns what a database, its driver or SQLAlchemy raise into an InputError that keeps the password."""
    try:
        yield
    except (StorageInternalError, exc.SQLAlchemyError, OSError, ImportError) as error:
        raise InputError(f"parameter 'storage': {_explanation(url, error)}") from None


def _open(url: str, heartbeat: int, grace: int) -> PatientStorage:
    limit = time.monotonic() + _MAKING_SECONDS
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                storage = PatientStorage(
                    url.replace("{", "{{").replace("}", "}}"),  # Optuna takes braces for a template's
                    engine_kwargs=engine_options(url),
                    heartbeat_interval=heartbeat,
                    grace_period=grace,
                    heartbeat_stale_trial_callback=RETRY,
                )
            if is_sqlite(url):
                sqlalchemy.event.listen(storage.engine, "connect", _quicken)
                storage.engine.dispose()
            return storage
        except exc.DBAPIError as error:
            if not (is_passing(error) or _number(error) in _BEING_MADE) or time.monotonic() > limit:
                raise
        time.sleep(random.uniform(0.1, 0.5))


def engine_options(url: str) -> dict[str, Any]:
    """How SQLAlchemy connects: few connections, each tried before use, none waited for without end."""
    options: dict[str, Any] = {"pool_size": _CONNECTIONS, "max_overflow": _CONNECTIONS, "pool_pre_ping": True}
    if is_sqlite(url):
        return options | {"connect_args": {"timeout": _ANSWER_SECONDS}}
    if url.startswith(("mysql+pymysql", "mariadb+pymysql")):
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": _ANSWER_SECONDS, "write_timeout": _ANSWER_SECONDS}
        return options | {"connect_args": waits}
    return options


def _quicken(connection: Any, _record: object) -> None:
    """Readers beside a writer, and no wait for the disk at every report of an epoch."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")


def _make_database(url: str) -> None:
    """Make the database that the URL names if the server lacks it and the account may; MySQL and MariaDB."""
    made = sqlalchemy.engine.make_url(url)
    if not url.startswith(("mysql", "mariadb")) or _connects(made):
        return
    name = str(made.database).replace("`", "``")
    engine = sqlalchemy.create_engine(made.set(database=""), **engine_options(url))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"create database if not exists `{name}` character set utf8mb4".replace("%", "%%")
            )
    except exc.OperationalError as error:
        if _number(error) not in (1044, 1227):
            raise
        raise InputError(
            f"parameter 'storage': {place(url)} has no database {made.database!r} that the account {made.username!r} "
            f"may use, and the account may not make it; have it made: CREATE DATABASE `{name}`; "
            f"GRANT ALL ON `{name}`.* TO '{made.username}'@'%'"
        ) from None
    finally:
        engine.dispose()


def _connects(url: sqlalchemy.engine.URL) -> bool:
    options = engine_options(url.render_as_string(hide_password=False))
    if "connect_args" in options:  # something may listen there that never says a word
        options["connect_args"] |= {"read_timeout": _GREETING_SECONDS, "write_timeout": _GREETING_SECONDS}
    engine = sqlalchemy.create_engine(url, **options)
    try:
        patiently(lambda: engine.connect().close(), CONNECT_SECONDS)
    except exc.OperationalError as error:
        if _number(error) not in _NO_DATABASE:
            raise
        return False
    finally:
        engine.dispose()
    return True


def _number(error: exc.DBAPIError) -> object:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments else None


def _explanation(url: str, error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    where = place(url)
    reason = str(getattr(error, "orig", None) or error)
    if isinstance(error, socket.gaierror):
        return f"there is no host of the name in {where} ({error.strerror}); correct the URL"
    if isinstance(error, ImportError | exc.NoSuchModuleError):
        scheme = url.partition("://")[0]
        return f"no driver for {scheme} is installed; use mysql+pymysql or sqlite, or install it ({reason})"
    if isinstance(error, OSError):
        return f"no database answers at {where} ({scrubbed(reason, url)}); start it, or correct the URL"
    if isinstance(error, exc.DBAPIError):
        if _number(error) == 1045:
            user = unquote(urlsplit(url).username or "")
            return f"{where} refuses the account {user!r}: wrong user or password; correct the URL"
        if is_sqlite(url) and "full" in reason:
            return f"the disk of {where} is full ({reason}); free some space, or keep studies elsewhere"
        if is_passing(error):
            return f"the database at {where} is away ({scrubbed(reason, url)[:200]}); run the same line again"
    if isinstance(error, optuna.exceptions.OptunaError):
        return f"{where} holds tables that Optuna {optuna.__version__} cannot use: {reason}"
    return (
        f"a database that Optuna can use is needed, but {where} answers with {type(error).__name__}: "
        f"{scrubbed(reason, url)[:200]}"
    )
