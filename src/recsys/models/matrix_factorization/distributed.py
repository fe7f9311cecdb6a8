"""Matrix factorization in several processes, with checkpoints: epochs by a schedule, in steps that all take together.

What computes a step is a learner: block_exchange.py on CPUs, batch_learner.py on GPUs.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.distributed.context import Context
from recsys.distributed.process_group import Group
from recsys.errors import StoppedError
from recsys.metrics import auc_by_ranks
from recsys.models.matrix_factorization.batch_learner import BatchLearner
from recsys.models.matrix_factorization.block_exchange import BlockExchange
from recsys.models.matrix_factorization.factors import Factors, Float32Array
from recsys.models.matrix_factorization.schedule import Epoch, TrainingSchedule
from recsys.models.matrix_factorization.sgd import reproducible_torch
from recsys.models.matrix_factorization.training import Problem, mean_square_error

NOT_MEASURED = math.inf  # in a table of numbers: no measure is infinite, but an AUC may be NaN


class Learner(Protocol):
    """What is learnt, split over processes. Every method is called by all of them, and `prepare` waits for none."""

    steps: int
    """Of an epoch."""

    def initialize(self) -> object:
        """Fills the tables with initial values."""

    def begin_epoch(self, number: int, learning_rate: float, step: int) -> None:
        """Be ready for a step of an epoch, counted from 0."""

    def after(self, step: int) -> int:
        """The next step before which processes speak to each other: this one and those up to it are taken at once."""

    def is_summed(self, step: int) -> bool:
        """Whether square errors are summed after those, and wishes with them; after the last of an epoch they are."""

    def prepare(self, step: int) -> None:
        """What can be done of them without others."""

    def step(self, step: int) -> Tensor:
        """Takes them; gives square errors, (steps, k): the sum over processes is that of all rows, from before each."""

    def exchange(self, step: int) -> None:
        """Sends and receives what those after them need."""

    def predict_all(self) -> Float32Array | None:
        """Standardised ratings of the validation rows, (n,), in rank 0."""

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""

    def restore(self) -> None:
        """Goes back to the tables that were kept."""

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, as tensors by the names of the saved format."""

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that was read into what `state` gave."""

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors` in rank 0; elsewhere they may have no rows."""


def fit_factors_distributed(
    context: Context,
    problem: Problem,
    on_epoch: Callable[[Epoch], None] | None = None,
    *,
    make: Callable[[Context, Problem], Learner] | None = None,
) -> tuple[Factors, list[Epoch], int]:
    """Trains as one process does, in steps that all processes take together.

    All processes of the context call it with the same problem. The columns of its rows may be mapped from files, of
    which each process keeps its share. Training continues from the context's newest checkpoint. Rank 0 returns the
    factors; the arrays of the other ranks may have no rows. `on_epoch` is called, and the problem's
    `like_threshold` used, in rank 0 only.

    Args:
        make: the learner; None: by the device. On CPUs the numbers are those of one process, to the last bit.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
        StoppedError: the context was told to stop, and has saved a checkpoint.
    """
    group = context.group
    with torch.no_grad(), reproducible_torch(group.device):
        make = make or (BlockExchange if group.device.type == "cpu" else BatchLearner)
        learner, schedule = make(context, problem), TrainingSchedule(problem.config, problem.unit[1])
        loop = TrainingLoop(context, learner, schedule, len(problem.rows))  # type: ignore[arg-type]
        loop.restore_or_initialize()
        validated = problem.validation is not None
        while not schedule.is_finished:
            started = time.perf_counter()
            train_mse = loop.run_epoch()
            context.beat(schedule.next_epoch * learner.steps, True)
            mse, auc = _measure(group, problem, learner.predict_all()) if validated else (None, None)
            epoch = Epoch(
                schedule.next_epoch,
                time.perf_counter() - started,
                schedule.rmse(train_mse),
                None if mse is None else schedule.rmse(mse),
                auc,
            )
            loop.end_epoch(epoch, on_epoch, keeps=validated)
        if validated:
            learner.restore()
        return Factors(problem.unit[0], **learner.arrays()), schedule.history, schedule.best_epoch


class TrainingLoop:
    """The state of a training: its learner, its position in the epochs and steps, and its checkpoints."""

    def __init__(self, context: Context, learner: Learner, schedule: TrainingSchedule, n_rows: int) -> None:
        self.context, self.learner, self.schedule, self.n_rows = context, learner, schedule, n_rows
        self.next_step = 0  # of the epoch
        self.total = 0.0  # square errors of the epoch so far

    def run_epoch(self) -> float:
        """Takes the remaining steps of an epoch; returns its mean square error.

        Raises:
            StoppedError: any process was told to stop; a checkpoint is saved.
        """
        context, learner, number = self.context, self.learner, self.schedule.next_epoch
        learner.begin_epoch(number, self.schedule.learning_rate, self.next_step)
        squares: list[Tensor] = []  # not summed yet
        while self.next_step < learner.steps:
            step = (number - 1) * learner.steps + self.next_step
            context.beat(step, False)
            learner.prepare(self.next_step)
            context.beat(step, True)
            squares.append(learner.step(self.next_step))
            told = self._begin_to_tell(torch.cat(squares)) if learner.is_summed(self.next_step) else None
            learner.exchange(self.next_step)
            self.next_step = learner.after(self.next_step)
            if told is None:
                continue
            *errors, stop, save = told().tolist()
            for at in range(0, len(errors), squares[0].shape[1]):  # step by step, however many are taken at once
                self.total += math.fsum(errors[at : at + squares[0].shape[1]])
            squares.clear()
            if stop:
                self._save()
                raise StoppedError(f"stopped in epoch {number} after step {self.next_step} of {learner.steps}")
            if save:
                self._save()
        return self.total / self.n_rows

    def _begin_to_tell(self, squares: Tensor) -> Callable[[], Tensor]:
        """Sums square errors, and how many processes wish to stop and to save.

        One message for all: the sum is then the same number in all processes, after a restart too.
        """
        wishes = squares.new_tensor([self.context.is_told_to_stop(), self.context.checkpoints.is_wanted()])
        return self.context.group.begin_sum(torch.cat([squares.flatten(), wishes]))

    def end_epoch(self, epoch: Epoch, on_epoch: Callable[[Epoch], None] | None, *, keeps: bool) -> None:
        """Records an epoch, keeps the best tables, calls `on_epoch` in rank 0, and saves a checkpoint if due."""
        if self.schedule.add(epoch) and keeps:
            self.learner.keep()
        self.next_step, self.total = 0, 0.0
        if on_epoch and not self.context.group.rank:
            on_epoch(epoch)
        if not self.context.checkpoints.every_seconds:  # else the last steps of the epoch have asked
            self._save()

    def restore_or_initialize(self) -> None:
        """Continues from the newest checkpoint, or begins if there is none."""
        state = self._state()
        if self.context.checkpoints.load(state) is None:
            self.learner.initialize()
            return
        self.learner.take(state)
        epochs, next_step, self.total = state["place"].tolist()
        self.next_step = int(next_step)
        for number, seconds, train, *measured in state["history"][: int(epochs)].tolist():
            known = (None if value == NOT_MEASURED else value for value in measured)
            self.schedule.add(Epoch(int(number), seconds, train, *known))

    def _save(self) -> None:
        self.context.checkpoints.save(self._state())

    def _state(self) -> dict[str, Tensor]:
        """All that the next step depends on. The seed, and with it the order of the rows, is in the job's digest."""
        history = torch.full((self.schedule.config.epochs, 5), NOT_MEASURED, dtype=torch.float64)
        for row, done in enumerate(self.schedule.history):
            values = done.number, done.seconds, done.train_rmse, done.validation_rmse, done.validation_auc
            history[row] = history.new_tensor([NOT_MEASURED if value is None else value for value in values])
        position = torch.tensor([len(self.schedule.history), self.next_step, self.total], dtype=torch.float64)
        return self.learner.state() | {"history": history, "place": position}


def _measure(group: Group, problem: Problem, predicted: Float32Array | None) -> tuple[float, float | None]:
    """The mean square error in standardised units, and the AUC if a threshold is given: rank 0's, in all processes."""
    assert problem.validation is not None
    measures = torch.full((2,), NOT_MEASURED, dtype=torch.float64, device=group.device)
    if predicted is not None:
        ratings, (mean, scale) = problem.validation.ratings, problem.unit
        measures[0] = mean_square_error(predicted, ((ratings - mean) / scale).astype(np.float32))
        if problem.like_threshold is not None:
            measures[1] = auc_by_ranks(ratings >= problem.like_threshold, predicted)
    mse, auc = group.broadcast(measures).tolist()
    return mse, None if auc == NOT_MEASURED else auc
