"""Matrix factorization in several processes: the training of `sgd.fit_factors`, with checkpoints."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.distributed.context import Context
from recsys.distributed.process_group import Group
from recsys.errors import StoppedError
from recsys.metrics import auc_by_ranks
from recsys.models.matrix_factorization.batches import pad_batch
from recsys.models.matrix_factorization.data_parallel import DataParallelEngine
from recsys.models.matrix_factorization.factors import Factors
from recsys.models.matrix_factorization.network import Rows, to_rows
from recsys.models.matrix_factorization.row_sharded import RowShardedEngine
from recsys.models.matrix_factorization.sampler import DistributedBatches
from recsys.models.matrix_factorization.schedule import Epoch, TrainingSchedule
from recsys.models.matrix_factorization.sgd import PREDICTION_CHUNK, copy_tensors, reproducible_torch
from recsys.models.matrix_factorization.training import Problem, mean_square_error

NOT_MEASURED = math.inf  # in a table of numbers: no measure is infinite, but an AUC may be NaN


def fit_factors_distributed(
    context: Context, problem: Problem, on_epoch: Callable[[Epoch], None] | None = None
) -> tuple[Factors, list[Epoch], int]:
    """Trains as `sgd.fit_factors` does, to the same numbers but for the order of sums.

    All processes of the context call it with the same problem. The columns of its rows may be mapped from files, of
    which each process reads its share. Training continues from the context's newest checkpoint. Rank 0 returns the
    factors; if tables are split, the arrays of the other ranks have no rows. `on_epoch` is called, and the problem's
    `like_threshold` used, in rank 0 only.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
        StoppedError: the context was told to stop, and has saved a checkpoint.
    """
    sizes, config, seed, validation = problem.sizes, problem.config, problem.seed, problem.validation
    assert isinstance(problem.rows, Interactions)
    rows = replace(problem.rows, timestamps=None)  # not used: would be read from disk in vain
    group = context.group
    with torch.no_grad(), reproducible_torch(group.device):
        mean, scale = _mean_and_deviation(group, rows.ratings)
        engine_class = RowShardedEngine if context.sharding == "row" else DataParallelEngine
        engine = engine_class(group, sizes, config, rows)
        schedule = TrainingSchedule(config, scale)
        batches = DistributedBatches(len(rows), config.batch_size, group, seed)
        loop = TrainingLoop(context, engine, schedule, batches, keeps_best=validation is not None)
        loop.restore_or_initialize(seed)
        validator = None
        if validation is not None:
            validator = Validator(group, engine, sizes, validation, (mean, scale), problem.like_threshold)
        while not schedule.is_finished:
            started = time.perf_counter()
            own = rows[batches.epoch_rows(schedule.next_epoch)]
            train_mse = loop.run_epoch(to_rows(own, mean, scale, sizes, group.device, unknown=False))
            context.beat(schedule.next_epoch * batches.n_batches, True)
            validation_mse, auc = validator.measure() if validator else (None, None)
            epoch = Epoch(
                schedule.next_epoch,
                time.perf_counter() - started,
                schedule.rmse(train_mse),
                None if validation_mse is None else schedule.rmse(validation_mse),
                auc,
            )
            loop.end_epoch(epoch, on_epoch)
        if loop.best_weights:
            copy_tensors(loop.best_weights, engine.network.parameters())
        return Factors(mean, **engine.gather_arrays(scale)), schedule.history, schedule.best_epoch


class TrainingLoop:
    """The state of a training: its engine, its position in the epochs and batches, and its checkpoints."""

    def __init__(
        self,
        context: Context,
        engine: DataParallelEngine | RowShardedEngine,
        schedule: TrainingSchedule,
        batches: DistributedBatches,
        *,
        keeps_best: bool,
    ) -> None:
        self.context, self.engine, self.schedule, self.batches = context, engine, schedule, batches
        self.next_batch = 0  # of the epoch
        self.total = 0.0  # square errors of the epoch so far
        parameters = engine.network.parameters()
        self.best_weights = [torch.empty_like(p.detach()) for p in parameters] if keeps_best else []

    def run_epoch(self, rows: Rows) -> float:
        """Trains on the remaining batches of an epoch; returns its mean square error.

        Args:
            rows: all rows of this process in the epoch, in its order.

        Raises:
            StoppedError: any process was told to stop; a checkpoint is saved.
        """
        context, batches = self.context, self.batches
        self.engine.set_learning_rate(self.schedule.learning_rate, batches.n_rows)
        while self.next_batch < batches.n_batches:
            number = self.next_batch
            step = (self.schedule.next_epoch - 1) * batches.n_batches + number
            context.beat(step, False)
            part, length = batches.batch_slice(number), batches.largest_share(number)
            batch = pad_batch(rows, part, length, batches.rows_of_batch(number), self.engine.sizes)
            context.beat(step, True)
            squares = self.engine.step(batch)
            # One message for both: the sum is then the same number in all processes, after a restart too.
            told_to_stop = squares.new_tensor(context.is_told_to_stop(), dtype=torch.float64)
            errors, stop = context.group.sum(torch.stack([squares.double(), told_to_stop])).tolist()
            self.total += errors
            self.next_batch += 1
            if stop:
                self._save()
                raise StoppedError(
                    f"stopped in epoch {self.schedule.next_epoch} after batch {self.next_batch} of {batches.n_batches}"
                )
            if context.checkpoints.is_due(at_epoch_end=False):
                self._save()
        return self.total / batches.n_rows

    def end_epoch(self, epoch: Epoch, on_epoch: Callable[[Epoch], None] | None) -> None:
        """Records an epoch, keeps the best weights, calls `on_epoch` in rank 0, and saves a checkpoint if due."""
        if self.schedule.add(epoch) and self.best_weights:
            copy_tensors(self.engine.network.parameters(), self.best_weights)
        self.next_batch, self.total = 0, 0.0
        if on_epoch and not self.context.group.rank:
            on_epoch(epoch)
        if self.context.checkpoints.is_due(at_epoch_end=True):
            self._save()

    def restore_or_initialize(self, seed: int) -> None:
        """Continues from the newest checkpoint, or begins if there is none."""
        state = self._state()
        if self.context.checkpoints.load(state) is None:
            self.engine.initialize(seed)
            return
        epochs, next_batch, self.total = state["place"].tolist()
        self.next_batch = int(next_batch)
        for number, seconds, train, *measured in state["history"][: int(epochs)].tolist():
            known = (None if value == NOT_MEASURED else value for value in measured)
            self.schedule.add(Epoch(int(number), seconds, train, *known))

    def _save(self) -> None:
        self.context.checkpoints.save(self._state())

    def _state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors by the names of the saved format.

        The seed, and with it the order of the rows, is part of the job's digest.
        """
        names = [name for name, _ in self.engine.network.named_parameters()]
        labels = [f"{use}.{name}" for use in ("network", "best")[: 1 + bool(self.best_weights)] for name in names]
        tables: list[Tensor] = [*(p.detach() for p in self.engine.network.parameters()), *self.best_weights]
        history = torch.full((self.schedule.config.epochs, 5), NOT_MEASURED, dtype=torch.float64)
        for row, done in enumerate(self.schedule.history):
            values = done.number, done.seconds, done.train_rmse, done.validation_rmse, done.validation_auc
            history[row] = history.new_tensor([NOT_MEASURED if value is None else value for value in values])
        position = torch.tensor([len(self.schedule.history), self.next_batch, self.total], dtype=torch.float64)
        return dict(zip(labels, tables, strict=True)) | {"history": history, "place": position}


class Validator:
    """Measures on the validation rows: each process predicts its share, and rank 0 measures all predictions at once.

    Args:
        group: the processes.
        engine: predicts.
        sizes: numbers of users and items.
        rows: to validate on, all of them in every process.
        unit: mean and standard deviation, by which ratings are standardised.
        like_threshold: if given, AUC is measured too, of ratings of at least this.
    """

    def __init__(
        self,
        group: Group,
        engine: DataParallelEngine | RowShardedEngine,
        sizes: tuple[int, int],
        rows: Interactions,
        unit: tuple[float, float],
        like_threshold: float | None,
    ) -> None:
        self.group, self.engine, self.n_rows = group, engine, len(rows)
        self.share = -(-self.n_rows // group.size)
        own = rows[group.rank * self.share : (group.rank + 1) * self.share]
        standardised = to_rows(own, *unit, sizes, group.device, unknown=True)
        self.batch = pad_batch(standardised, slice(None), self.share, self.n_rows, sizes)
        self.ratings = rows.ratings if group.rank == 0 else None
        self.unit, self.like_threshold = unit, like_threshold

    def measure(self) -> tuple[float, float | None]:
        """The mean square error in standardised units, and the AUC if a threshold was given."""
        parts = range(0, self.share, PREDICTION_CHUNK)
        pairs = [
            (self.batch.users[s : s + PREDICTION_CHUNK], self.batch.items[s : s + PREDICTION_CHUNK]) for s in parts
        ]
        predicted = torch.cat([self.engine.predict(users, items) for users, items in pairs])
        predicted = self.group.gather_even(predicted)[: self.n_rows]
        measures = torch.full((2,), NOT_MEASURED, dtype=torch.float64, device=self.group.device)
        if self.ratings is not None:
            mean, scale = self.unit
            standardised = ((self.ratings - mean) / scale).astype(np.float32)
            on_cpu = predicted.cpu().numpy()
            measures[0] = mean_square_error(on_cpu, standardised)
            if self.like_threshold is not None:
                measures[1] = auc_by_ranks(self.ratings >= self.like_threshold, on_cpu)
        mse, auc = self.group.broadcast(measures).tolist()
        return mse, None if auc == NOT_MEASURED else auc


def _mean_and_deviation(group: Group, ratings: Floats) -> tuple[float, float]:
    """Mean and standard deviation of all ratings, or 1 if all are alike; each process reads its share."""
    ends = np.linspace(0, len(ratings), group.size + 1, dtype=np.int64)
    share = np.asarray(ratings[ends[group.rank] : ends[group.rank + 1]], np.float64)

    def mean(values: Floats) -> float:
        return float(group.sum(torch.tensor(values.sum(), dtype=torch.float64, device=group.device))) / len(ratings)

    center = mean(share)
    return center, math.sqrt(mean((share - center) ** 2)) or 1.0
