"""A worker's part of a search: join it, claim trials one by one, run them, and perhaps be the one that finishes.

Which trial may start is decided under the study's lock (recsys.tuning.coordinator), by the states that Optuna's storage
holds: docs/decisions/0010-counting-trials.md.
"""

import copy
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, Literal, NamedTuple

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.data.dataset import Dataset
from recsys.errors import DivergedError, InputError
from recsys.runtime.interruption import interruptible, uninterrupted
from recsys.settings import Settings
from recsys.tuning.coordination import SearchState, StudyCoordinator
from recsys.tuning.database_errors import explained
from recsys.tuning.heartbeat import HeartbeatThread
from recsys.tuning.objective import Curves, TrialObjective, TrialResult
from recsys.tuning.pruning import PruningReporter
from recsys.tuning.storage import RETRY, RetryingStorage, frozen, id_of, open_storage
from recsys.tuning.study import SearchConfig, StudyDefinition
from recsys.tuning.trials import DONE, STOPPED, best_trial, count, is_lost, note_of, refuse_endless_failure

_GRACE = 6  # heartbeats that may be missed, as while a database restarts
_POLL_SECONDS = 0.05, 0.5  # at first, and at last: where trials are short, so is what is left of the others' last ones


class SearchProgress(NamedTuple):
    """Where a search stands; `target` is None where only time ends it."""

    done: int
    pruned: int
    failed: int
    running: int
    target: int | None
    best: FrozenTrial | None


class SupersededError(Exception):
    """Another worker took over the finishing, as this one gave no heartbeat for too long."""


class Search:
    """One process's place in a search."""

    def __init__(self, config: SearchConfig, dataset: Dataset, url: str, study_name: str, host: str) -> None:
        """Open the study, or make it; use `join` before anything else.

        Raises:
            InputError: if the storage cannot be used or the study belongs to another search.
        """
        # Its warning of a failed trial is a traceback; `run` tells of the failure.
        optuna.logging.get_logger("optuna").setLevel(logging.ERROR)
        self.config = config
        self.name = study_name
        self.url = url
        self.host = host
        self.worker = f"{host[:80]}-{secrets.token_hex(5)}"
        self.number = 0
        self.target: int | None = None
        self._until: float | None = None
        self.definition = StudyDefinition(config, dataset.digest, study_name)
        self.objective = TrialObjective(config.family, dataset, config.metric, config.direction, config.seed)
        grace = _GRACE * config.heartbeat
        with explained(url):
            self.storage: RetryingStorage = open_storage(url, heartbeat=config.heartbeat, grace=grace)
            self.coordinator = StudyCoordinator(self.storage.engine, url, study_name, grace)
            with self.coordinator.locked():
                self.study = self.definition.open(self.storage)
        self._heartbeat: HeartbeatThread | None = None
        self._seen: set[int] = set()
        self._known: list[FrozenTrial] = []
        self._looked = -float("inf")

    def join(self, number: int | None = None, until: float | None = None, *, works: bool = True) -> bool:
        """Enter the study's search, or begin its next one where the last is over; False where there is none to enter.

        Args:
            number: the search to enter, for a process that another one has started for it.
            until: the moment, as of time.time(), after which no further trial starts; by default the config's timeout.
            works: whether this process is to run trials, not just to watch over others that do.
        """
        timeout = self.config.timeout
        self._until = until if until is not None or timeout is None else time.time() + timeout

        def enter(state: SearchState) -> bool:
            if number is not None and (state.get("search") != number or state["over"]):
                return False
            done = count(self.trials(), *DONE)
            state.setdefault("key", secrets.token_hex(8))
            if state.get("over", True):
                state |= {"search": state.get("search", 0) + 1, "over": False, "base": done, "target": 0}
                state |= {"outcome": None, "joined": state.get("joined", 0)}
            if state.get("finisher") not in [worker.name for worker in self.coordinator.alive()]:
                state["finisher"] = None
            if number is None:
                asked = state["base"] + self.config.trials
                open_end = self.config.trials == 0 or state["target"] is None
                state["target"] = None if open_end else max(state["target"], asked)
            self.number, self.target, ordinal = state["search"], state["target"], state["joined"]
            if works:
                state["joined"] += 1
                self.study.sampler = self.definition.sampler(ordinal)
            return True

        with explained(self.url):
            return self.coordinator.transact(enter)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Renews this worker's heartbeat meanwhile; a worker without one counts as dead after a while."""
        with explained(self.url):
            self._heartbeat = HeartbeatThread(self.coordinator, self.storage, self.worker, self.config.heartbeat)
        try:
            with self._heartbeat:
                yield
        finally:
            with explained(self.url):
                self.coordinator.leave(self.worker)

    def run(
        self,
        on_trial: Callable[[FrozenTrial, Curves], None],
        stopped: Callable[[], bool] = lambda: False,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        """Run trials until the search has all it shall have, its time is up, or `stopped` says so.

        Args:
            on_trial: called with a trial that this worker has ended and its curves, before the next one.
            idle: called again and again while other workers run the last trials: one of theirs may come back.
        """
        shortest, longest = _POLL_SECONDS
        pause = shortest
        with explained(self.url), closing(self.objective):
            while not stopped():
                result = TrialResult()
                with uninterrupted():  # a trial that was claimed is told how it ended; a stop cuts its training only
                    trial, ended = self._claim()
                    told = None if trial is None else self._run(trial, result)
                if told is not None:
                    on_trial(told, result.curves)
                if trial is not None:
                    pause = shortest
                    continue
                self._rest()
                if ended:
                    return
                idle()
                time.sleep(pause)
                pause = min(2 * pause, longest)
            self._rest()

    def contend(self) -> Literal["finish", "wait", "over"]:
        """Ask to be the one that finishes the search: `finish` is answered to one worker, while it lives."""

        def ask(state: SearchState) -> Literal["finish", "wait", "over"]:
            if state["over"] or state["search"] != self.number:
                return "over"
            others = [worker for worker in self.coordinator.alive() if worker.name != self.worker]
            if state["finisher"] in {worker.name for worker in others}:
                return "wait"
            if any(worker.trial is not None for worker in others):
                return "wait"
            state["finisher"] = self.worker
            return "finish"

        with explained(self.url):
            return self.coordinator.transact(ask)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Holds the study's lock for what may be done by the finisher only, and briefly.

        Raises:
            SupersededError: if this worker, paused for too long, is the finisher no more.
        """
        with explained(self.url), self.coordinator.locked() as state:
            if state["search"] != self.number or state["over"] or state["finisher"] != self.worker:
                raise SupersededError("another worker took over the finishing of the search")
            yield

    def close(self, outcome: dict[str, Any]) -> None:
        """Say that the search is over, and with what."""

        def end(state: SearchState) -> None:
            if state["search"] == self.number and state["finisher"] == self.worker:
                state |= {"over": True, "outcome": outcome}

        with explained(self.url):
            self.coordinator.transact(end)

    def concede(self) -> None:
        """Leave the finishing to another worker."""

        def clear(state: SearchState) -> None:
            if state["finisher"] == self.worker:
                state["finisher"] = None

        with explained(self.url):
            self.coordinator.transact(clear)

    def outcome(self) -> dict[str, Any] | None:
        """With what this search ended; None while it goes on."""
        state = self.coordinator.state()
        return state["outcome"] if state["search"] == self.number and state["over"] else None

    def others_alive(self) -> list[str]:
        """The names of other workers whose heartbeat is recent."""
        return [worker.name for worker in self.coordinator.alive() if worker.name != self.worker]

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, those of earlier searches too."""
        trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return trials

    def progress(self) -> SearchProgress:
        """Where the search stands."""
        trials = self.trials()
        states = [trial.state for trial in trials]
        return SearchProgress(
            states.count(TrialState.COMPLETE),
            states.count(TrialState.PRUNED),
            states.count(TrialState.FAIL),
            states.count(TrialState.RUNNING),
            self.target,
            best_trial(trials, self.config.direction),
        )

    def best(self) -> tuple[FrozenTrial, Settings]:
        """The best completed trial and its settings; raises InputError where none completed."""
        best = best_trial(self.trials(), self.config.direction)
        if best is None:
            raise InputError(f"study {self.name!r}: no trial completed; pass more trials or a longer timeout")
        return best, self.definition.module.Config(**best.user_attrs["config"])

    def _claim(self) -> tuple[Trial | None, bool]:
        """A trial to run or None, and whether there will be no more."""
        with self.coordinator.locked() as state:
            if state["over"] or state["search"] != self.number:
                return None, True
            trials = self._revived()
            self.target = state["target"]
            refuse_endless_failure(trials)
            done, running = count(trials, *DONE), count(trials, TrialState.RUNNING)
            full = self.target is not None and done + running >= self.target
            late = self._until is not None and time.time() >= self._until
            if full or late or state["finisher"]:
                return None, running == 0
            taken = self._take(trials)
        made_before = self.storage.begin(id_of(taken))
        if self._heartbeat is not None:
            self._heartbeat.take(id_of(taken), taken.number)
        # Where the lock was lost, with the database, two workers may have counted at the same time.
        if self.target is not None and made_before >= self.target:
            self._tell(taken, TrialState.FAIL, None, {}, {"note": {"error": "withdrawn: the search had enough trials"}})
            return None, False
        self._known = trials
        return self.storage.start(self.study, taken, trials), False

    def _take(self, trials: list[FrozenTrial]) -> FrozenTrial:
        """What Optuna's `ask` does first; the sampling, which takes longer, need not keep the others waiting."""
        for trial in trials:
            if trial.state is TrialState.WAITING:
                if not self.storage.set_trial_state_values(id_of(trial), TrialState.RUNNING):
                    continue
                taken = copy.deepcopy(trial)
                taken.state, taken.datetime_start = TrialState.RUNNING, datetime.now()
                return taken
        return self.storage.make_trial(self.study)

    def _revived(self) -> list[FrozenTrial]:
        """All trials, after those whose workers died have failed and what they tried is queued once more."""
        trials = self.trials()
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        # A worker that dies between making a trial and its first heartbeat leaves one that would never be stale.
        for trial in running:
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                if not self.storage.has_heartbeat(id_of(trial)):
                    self.storage.record_heartbeat(id_of(trial))
        if running and time.monotonic() - self._looked > self.config.heartbeat / 2:
            self._looked = time.monotonic()
            if self.storage.fail_stale_trials(self.study):
                trials = self.trials()
        # Queued already by the line above, unless its process was killed between its two steps.
        retried = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
        lost = [t for t in trials if t.state is TrialState.FAIL and is_lost(t) and t.number not in retried]
        for trial in lost:
            RETRY(self.study, trial)
        return self.trials() if lost else trials

    def _run(self, trial: Trial, result: TrialResult) -> FrozenTrial | None:
        """Run a trial and tell how it ended; None where it was taken for dead meanwhile and given to another."""
        started = time.monotonic()
        state, value, error = TrialState.FAIL, None, ""
        ended = frozen(trial)
        reporter = PruningReporter(self.study, self.storage, ended, self._known)
        told = False
        try:
            with self.storage.params_together(id_of(trial)):
                config = self.definition.configure(trial)
            ended.params, ended.distributions = trial.params, trial.distributions
            ended.user_attrs["config"] = config.model_dump()
            with interruptible():
                self.objective.measure(config, reporter.report, result)
            if not math.isfinite(result.value):
                raise DivergedError(f"the value is {result.value}")
            state, value = TrialState.COMPLETE, float(result.value)
        except optuna.TrialPruned:
            state, value = TrialState.PRUNED, ended.intermediate_values[max(ended.intermediate_values)]
        except UpdateFinishedTrialError:
            return None
        except (DivergedError, MemoryError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        except KeyboardInterrupt:
            error = STOPPED
            raise
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            note = {"seconds": time.monotonic() - started, "metrics": result.metrics, "curves": result.thinned()}
            note |= {"host": self.host, "worker": self.worker} | ({"error": error[:2000]} if error else {})
            ended.user_attrs["note"] = note
            told = self._tell(ended, state, value, reporter.waiting, ended.user_attrs)
        return ended if told else None

    def _tell(
        self,
        trial: FrozenTrial,
        state: TrialState,
        value: float | None,
        steps: Mapping[int, float],
        attributes: Mapping[str, Any],
    ) -> bool:
        """Write down how a trial ended; False where that was decided already, by one who took this worker for dead."""
        added = {key: attributes[key] for key in ("config", "note") if key in attributes}
        try:
            self.storage.finish(id_of(trial), state, value, steps, added)
        except UpdateFinishedTrialError:
            # An answer that was lost: what was written may be ours.
            found = self.storage.get_trial(id_of(trial))
            return found.state is state and note_of(found).get("worker") == self.worker
        trial.state, trial.datetime_complete = state, datetime.now()
        trial.value = value
        return True

    def _rest(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.take(None, None)
