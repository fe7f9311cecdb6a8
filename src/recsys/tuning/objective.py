"""One configuration in, its value out: measured on validation rows, or by cross-validation of the training rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from recsys.arrays import Array
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.data.splits import hash_pairs
from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.capabilities import capabilities
from recsys.settings import Settings
from recsys.training.fit_task import FitTask
from recsys.training.trainer import shared_task, train

LOWER_IS_BETTER = ("rmse", "mae", "log_loss")
METRICS = ("auc", "auc_per_user", "accuracy", "f1_score", "log_loss", "rmse", "mae")
"""What a search can be for: the metrics of an evaluation, less those that rank the catalogue."""

_STAND_IN = "rmse"  # what a family reports after an epoch where it does not report the metric itself

Curves = dict[str, list[tuple[int, float]]]
_STORED_POINTS = 200  # of a curve in the study, whose columns hold 64 KB; the worker itself records all of it

StepReport = Callable[[int, float], None]
"""Told a step's number and its value, higher or lower as the search's direction wants; may raise to end the trial."""


@dataclass(eq=False)
class TrialResult:
    """What a trial found: its value, every metric, and the curves of its steps by name as (step, value)."""

    value: float = float("nan")
    metrics: dict[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Keep the values of one step."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))

    def thinned(self) -> Curves:
        """The curves with so few points that a study can keep them."""
        return {name: curve[:: 1 + len(curve) // _STORED_POINTS] for name, curve in self.curves.items()}


@dataclass(frozen=True, eq=False)
class TrialObjective:
    """Measures configurations of one family on one dataset; the test rows are never looked at.

    A family that asks for cross-validation is measured by the mean over so many folds of the training rows, each
    predicted by what learnt from the others; the rest are learnt from the training rows and measured on the
    validation rows.
    """

    family: str
    dataset: Dataset
    metric: str
    direction: str
    seed: int

    def measure(self, config: Settings, report: StepReport, into: TrialResult) -> TrialResult:
        """Fill `into` on the way, so that a trial that is ended early has its curve.

        Raises:
            InputError: where the metric is undefined on these rows; DivergedError where the training diverges.
        """
        folds = capabilities(self.family).cross_validation_folds
        if folds:
            return self._cross_validate(config, folds, report, into)

        metric = f"validation_{self.metric}"
        told = ""  # what the pruner hears of, the same at every step: the metric, or the error that stands in for it

        def heard(step: int, values: dict[str, float]) -> None:
            nonlocal told
            into.add(step, {f"epoch_{name}": value for name, value in values.items()})
            told = told or next((name for name in (metric, f"validation_{_STAND_IN}") if name in values), "")
            if told in values:
                turned = told != metric and self.direction == "maximize"
                report(step, -values[told] if turned else values[told])

        into.metrics = self._fit(self.dataset, config, heard, self._task)
        into.value = into.metrics[self.metric]
        return into

    @cached_property
    def _task(self) -> FitTask[Interactions] | None:
        """What all trials fit to."""
        return shared_task(self.family, self.dataset)

    def close(self) -> None:
        """Free what the trials shared; a further one makes it again."""
        self.__dict__.pop("_task", None)

    def _cross_validate(self, config: Settings, folds: int, report: StepReport, into: TrialResult) -> TrialResult:
        found: list[dict[str, float]] = []
        for number, dataset in enumerate(self._folds(folds), start=1):
            found.append(self._fit(dataset, config))
            names = set.intersection(*(set(metrics) for metrics in found))
            into.metrics = {name: float(np.mean([metrics[name] for metrics in found])) for name in names}
            into.value = into.metrics[self.metric]
            into.add(number, {f"fold_{self.metric}": found[-1][self.metric]})
            report(number, into.value)
        return into

    def _folds(self, folds: int) -> Iterator[Dataset]:
        """The dataset with one fold of its training rows as validation and the others as training, for each fold.

        A pair's hash decides, so that a fold is the same whatever the order of the file.
        """
        rows = self.dataset.train
        hashes = hash_pairs(self.dataset.user_ids, self.dataset.item_ids, rows.users, rows.items)
        # Multiplied, since the size of the hash decided the part: folds by size would not be alike.
        fold: Array = ((hashes * np.uint64(2 * self.seed + 1)) >> np.uint64(32)) % np.uint64(folds)
        for number in range(folds):
            out = fold == number
            if out.any() and not out.all():
                yield self.dataset.holding(train=rows[np.flatnonzero(~out)], validation=rows[np.flatnonzero(out)])

    def _fit(
        self,
        dataset: Dataset,
        config: Settings,
        heard: Callable[[int, dict[str, float]], None] | None = None,
        task: FitTask[Interactions] | None = None,
    ) -> dict[str, float]:
        trained = train(self.family, dataset, config, seed=self.seed, refit=False, report=heard, lists=False, task=task)
        chosen = trained.chosen
        measured = evaluate(chosen, dataset, part="validation", ranking=False, baselines=False)
        if self.metric not in measured.metrics:
            reason = measured.undefined[self.metric]
            raise InputError(f"metric {self.metric!r} is undefined on the validation rows: {reason}")
        return measured.metrics
