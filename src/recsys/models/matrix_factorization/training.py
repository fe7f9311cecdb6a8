"""The training of matrix factorization in one process: epochs by a schedule, early stopping, and the best epoch kept.

An engine computes the epochs: compiled.py on the CPU, sgd.py on a GPU. This module imports neither.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from recsys.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.data.loader import BlockLoader
from recsys.metrics import auc_by_ranks
from recsys.models.base.family import Memo
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import Factors, Float32Array
from recsys.models.matrix_factorization.schedule import Epoch, TrainingSchedule

_CHUNK = 1 << 20  # ratings at a time


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be learnt, and how.

    Args:
        rows: ratings of any scale; or a loader that reads them from disk.
        sizes: how many users and items there are; all codes are below.
        config: the settings.
        seed: of the starting factors and of the order of the rows.
        validation: rows to choose the epoch by; -1 stands for an unknown user or item.
        like_threshold: if given, every epoch is also measured by the AUC of ratings of at least this.
        memo: of what fits to these rows have in common, whatever their settings.

    Raises:
        ValueError: there are no ratings to train on or to validate on.
    """

    rows: Interactions | BlockLoader
    sizes: tuple[int, int]
    config: Config
    seed: int
    validation: Interactions | None = None
    like_threshold: float | None = None
    memo: Memo | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rows, BlockLoader):
            check_not_empty(self.rows, self.validation)

    @cached_property
    def unit(self) -> tuple[float, float]:
        """Mean and standard deviation of the ratings; 1 if all are alike, so that every prediction is the mean."""
        if isinstance(self.rows, BlockLoader):
            return self.rows.mean, self.rows.scale
        mean = _mean(self.rows.ratings, lambda ratings: ratings)
        return mean, math.sqrt(_mean(self.rows.ratings, lambda ratings: (ratings - mean) ** 2)) or 1.0


class Engine(Protocol):
    """Tables of factors and biases, and the way they learn."""

    def run_epoch(self, learning_rate: float, number: int) -> float:
        """Learns from every row once; gives the mean square error, of each row before the step that used it."""

    def predict(self) -> Float32Array:
        """Standardised ratings of the validation rows, (n,)."""

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""

    def restore(self) -> None:
        """Goes back to the tables that were kept."""

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors`."""


def run(
    problem: Problem, engine: Engine, on_epoch: Callable[[Epoch], None] | None = None
) -> tuple[Factors, list[Epoch], int]:
    """Trains an engine; returns the factors, the epochs run and the number of the best one.

    Ratings are standardised inside, so that the settings mean the same on every scale. With validation rows,
    training stops after ``patience`` epochs without a lower RMSE and the best epoch's factors are returned;
    without them it runs all epochs and returns the last.

    Args:
        problem: what the engine was made for.
        engine: as it was made.
        on_epoch: called after each epoch; what it raises ends the training and passes through.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    (mean, scale), validation = problem.unit, problem.validation
    truth = None if validation is None else ((validation.ratings - mean) / scale).astype(np.float32)
    liked = None
    if validation is not None and problem.like_threshold is not None:
        liked = validation.ratings >= problem.like_threshold
    schedule = TrainingSchedule(problem.config, scale)
    while not schedule.is_finished:
        started = time.perf_counter()
        train_mse = engine.run_epoch(schedule.learning_rate, schedule.next_epoch)
        predicted = None if truth is None else engine.predict()
        epoch = Epoch(
            schedule.next_epoch,
            time.perf_counter() - started,
            schedule.rmse(train_mse),
            None if predicted is None or truth is None else schedule.rmse(mean_square_error(predicted, truth)),
            None if predicted is None or liked is None else auc_by_ranks(liked, predicted),
        )
        if schedule.add(epoch) and truth is not None:
            engine.keep()
        if on_epoch:
            on_epoch(epoch)
    if truth is not None:
        engine.restore()
    return Factors(mean, **engine.arrays()), schedule.history, schedule.best_epoch


def _mean(ratings: Floats, of: Callable[[Floats], Floats]) -> float:
    """Of a function of the ratings, which may be mapped from a file: some at a time."""
    starts = range(0, len(ratings), _CHUNK)
    return math.fsum(of(ratings[at : at + _CHUNK].astype(np.float64)).sum() for at in starts) / len(ratings)


def check_not_empty(rows: Interactions, validation: Interactions | None) -> None:
    """Raises ValueError where there is nothing to train on, or to validate on."""
    for purpose, table in (("training", rows), ("validation", validation)):
        if table is not None and len(table) == 0:
            raise ValueError(f"{purpose} needs at least one rating, got 0")


def mean_square_error(predicted: Float32Array, truth: Float32Array) -> float:
    """Mean square error in standardised units."""
    errors: Floats = (predicted - truth).astype(np.float64)
    return float(np.square(errors).mean())  # a product of two vectors would start the threads of linear algebra
