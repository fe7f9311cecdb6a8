"""The intermediate values of a running trial: to the pruner at once, to the study every few seconds."""

import time
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from recsys.tuning.storage import RetryingStorage, id_of

_SECONDS = 3.0


class PruningReporter:
    """Compares every step's value with the completed trials, as known a few seconds ago.

    Optuna's own `report` and `should_prune` ask the database ten times a step, which takes longer than a short epoch.
    """

    def __init__(
        self, study: optuna.Study, storage: RetryingStorage, trial: FrozenTrial, known: Sequence[FrozenTrial]
    ) -> None:
        """Take a trial, to be changed, and the trials of its study as they are now."""
        self.direction = study.direction  # the pruner takes this object for the study
        self._study = study
        self._storage = storage
        self._trial = trial
        self._completed = [other for other in known if other.state is TrialState.COMPLETE]
        self.waiting: dict[int, float] = {}
        """What the study has not got yet, by step."""
        self._asked = self._sent = time.monotonic()

    def report(self, step: int, value: float) -> None:
        """Take a step's value; raises TrialPruned where the trial falls behind."""
        self._trial.intermediate_values[step] = value
        self.waiting[step] = value
        if time.monotonic() - self._sent > _SECONDS:
            self.send()
        if self._study.pruner.prune(self, self._trial):  # type: ignore[arg-type]
            raise optuna.TrialPruned

    def send(self) -> None:
        """Write what is waiting; raises UpdateFinishedTrialError where the trial was given away."""
        if self.waiting:
            self._storage.add_intermediate_values(id_of(self._trial), self.waiting)
        self.waiting = {}
        self._sent = time.monotonic()

    def get_trials(self, **_options: Any) -> list[FrozenTrial]:
        """The completed trials, which is all that the pruner asks its study for."""
        if time.monotonic() - self._asked > _SECONDS:
            self._completed = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._asked = time.monotonic()
        return self._completed
