"""Optuna's storage on a database, with calls that are made again after a lost connection.

All private names of Optuna are used here and in no other module.

It has no public way to take a waiting trial, to write what is known of a trial in few queries, or to give its
sampler the trials that were just read. tests/tuning runs Optuna's own tests of a storage over this
one.
"""

import copy
import json
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import exc

from recsys.errors import InputError
from recsys.runtime.interruption import uninterrupted
from recsys.runtime.retry import retry_on
from recsys.tuning.database import engine_options, reach
from recsys.tuning.database_errors import error_number, explained, is_transient, retry_database
from recsys.tuning.database_url import is_sqlite, sqlite_path

_MOST_RETRIES = 5  # of a trial whose worker died: its settings may be what kills it
_MAKING_SECONDS = 30.0
_BEING_MADE = {1007, 1050, 1061, 1062, 1684}  # somebody else makes the same tables at this moment

_FINITE_VALUE = models.TrialValueModel.TrialValueType.FINITE


def id_of(trial: FrozenTrial | Trial) -> int:
    """The key of a trial in the storage; its number counts within its study only."""
    return int(trial._trial_id)


def frozen(trial: Trial) -> FrozenTrial:
    """A copy of a running trial as far as this process knows it, without a query."""
    return copy.deepcopy(trial._cached_frozen_trial)


def _retried(method: Callable[..., Any]) -> Any:
    return retry_database(method)


class RetryingStorage(RDBStorage):
    """Optuna's storage, with every call made again after a deadlock or a lost connection.

    Each may be repeated although it was carried out already: a parameter or a heartbeat is there then, a state is
    final, and a trial made twice has no heartbeat of its worker and counts as one whose worker died. What Optuna
    writes of a trial in dozens of queries, each call in a transaction of its own, is written here in a few.
    """

    _starting: FrozenTrial | None = None
    _held: list[dict[str, Any]] | None = None

    create_new_study = _retried(RDBStorage.create_new_study)
    set_study_user_attr = _retried(RDBStorage.set_study_user_attr)
    set_study_system_attr = _retried(RDBStorage.set_study_system_attr)
    get_all_studies = _retried(RDBStorage.get_all_studies)
    get_study_id_from_name = _retried(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _retried(RDBStorage.get_study_name_from_id)
    get_study_directions = _retried(RDBStorage.get_study_directions)
    get_study_user_attrs = _retried(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _retried(RDBStorage.get_study_system_attrs)
    set_trial_state_values = _retried(RDBStorage.set_trial_state_values)
    set_trial_intermediate_value = _retried(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _retried(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _retried(RDBStorage.set_trial_system_attr)
    record_heartbeat = _retried(RDBStorage.record_heartbeat)
    _create_new_trial = _retried(RDBStorage._create_new_trial)
    _get_trials = _retried(RDBStorage._get_trials)
    _get_best_trial_id = _retried(RDBStorage._get_best_trial_id)
    _get_stale_trial_ids = _retried(RDBStorage._get_stale_trial_ids)
    _read_trial = _retried(RDBStorage.get_trial)
    _write_param = _retried(RDBStorage._set_trial_param)

    def make_trial(self, study: optuna.Study) -> FrozenTrial:
        """A new running trial, without the six queries that read it again."""
        made: FrozenTrial = self._create_new_trial(study._study_id)
        cache: Any = study._storage
        with cache._lock:
            cache._add_trials_to_cache(study._study_id, [made])
        return copy.deepcopy(made)

    def start(self, study: optuna.Study, trial: FrozenTrial, known: list[FrozenTrial]) -> Trial:
        """A trial that is RUNNING as Optuna hands it to an objective, without a query.

        Args:
            known: all trials of the study, for its sampler, which would read them again.
        """
        study._thread_local.cached_all_trials = known
        self._starting = trial
        try:
            return Trial(study, id_of(trial))
        finally:
            self._starting = None

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial, in six queries unless it is the one that is being started."""
        if self._starting is not None and id_of(self._starting) == trial_id:
            return copy.deepcopy(self._starting)
        read: FrozenTrial = self._read_trial(trial_id)
        return read

    def fail_stale_trials(self, study: optuna.Study) -> bool:
        """Fail the trials without a heartbeat and queue their settings again; whether there were any."""
        if not self._get_stale_trial_ids(study._study_id):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        return True

    def _set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution, previous: BaseDistribution | None
    ) -> None:
        if self._held is None:
            self._write_param(trial_id, name, value, distribution, previous)
            return
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

        @retry_database
        def write() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_missing(connection, models.TrialParamModel, trial_id, "param_name", rows)

        if rows:
            write()

    def add_intermediate_values(self, trial_id: int, values: Mapping[int, float]) -> None:
        """Add the values of several steps at once, all finite; those that are there are left as they are."""

        @retry_database
        def add() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_steps(connection, trial_id, values)

        add()

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

        @retry_database
        def end() -> None:
            with self.engine.begin() as connection:
                self._check_open(connection, trial_id)
                _add_steps(connection, trial_id, steps)
                connection.execute(inherited)
                connection.execute(sqlalchemy.insert(table), notes)
                if value is not None:
                    connection.execute(sqlalchemy.insert(models.TrialValueModel), values)
                connection.execute(ended.values(state=state, datetime_complete=datetime.now()))

        end()

    def begin(self, trial_id: int) -> int:
        """Record a new trial's first heartbeat; how many of its study were made before it and have not failed."""
        table = models.TrialModel
        study = sqlalchemy.select(table.study_id).where(table.trial_id == trial_id).scalar_subquery()
        before = table.study_id == study, table.trial_id < trial_id, table.state != TrialState.FAIL
        query = sqlalchemy.select(sqlalchemy.func.count()).select_from(table).where(*before)

        @retry_database
        def ask() -> int:
            with self.engine.begin() as connection:
                _add_missing(connection, models.TrialHeartbeatModel, trial_id, "trial_id", [{"trial_id": trial_id}])
                return int(connection.execute(query).scalar_one())

        try:
            return ask()
        except exc.IntegrityError:  # another worker, which saw a trial without one, gave it at the same moment
            return ask()

    def _check_open(self, connection: sqlalchemy.Connection, trial_id: int) -> None:
        """Keep others from ending the trial meanwhile; raises UpdateFinishedTrialError where they have."""
        query = sqlalchemy.select(models.TrialModel.state).where(models.TrialModel.trial_id == trial_id)
        self.check_trial_is_updatable(trial_id, connection.execute(query.with_for_update()).scalar_one())

    def has_heartbeat(self, trial_id: int) -> bool:
        """Whether a trial ever had a heartbeat."""
        query = sqlalchemy.select(models.TrialHeartbeatModel).where(models.TrialHeartbeatModel.trial_id == trial_id)

        @retry_database
        def ask() -> bool:
            with self.engine.connect() as connection:
                return connection.execute(query).first() is not None

        return ask()


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


@uninterrupted()
def open_storage(url: str, *, heartbeat: int, grace: int) -> RetryingStorage:
    """The storage behind an SQLAlchemy URL; database and tables are made where they are not there.

    Args:
        heartbeat: seconds between the heartbeats of a running trial.
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
            reach(url)
        making = FileLock(f"{sqlite_path(url)}.lock", timeout=_MAKING_SECONDS) if is_sqlite(url) else nullcontext()
        with making:
            return _open(url, heartbeat, grace)


def _may_be_made_now(error: BaseException) -> bool:
    """Whether opening failed because another process makes the same tables at this moment, or for what may pass."""
    return is_transient(error) or (isinstance(error, exc.DBAPIError) and error_number(error) in _BEING_MADE)


@retry_on(_may_be_made_now, _MAKING_SECONDS)
def _open(url: str, heartbeat: int, grace: int) -> RetryingStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = RetryingStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna takes braces for a template's
            engine_kwargs=engine_options(url),
            heartbeat_interval=heartbeat,
            grace_period=grace,
            heartbeat_stale_trial_callback=RETRY,
        )
    if is_sqlite(url):
        sqlalchemy.event.listen(storage.engine, "connect", _use_wal)
        storage.engine.dispose()
    # Once more as the process ends: the last connection to close brings what SQLite wrote beside the file into it.
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _use_wal(connection: Any, _record: object) -> None:
    """Readers beside a writer, and no wait for the disk at every report of an epoch."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
