"""Matrix factorization over a context: the same training as `recsys.factorization.factorize`, in several processes."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.distributed.context import Context
from recsys.distributed.process_group import Group
from recsys.errors import StoppedError
from recsys.metrics import auc_by_ranks
from recsys.models.matrix_factorization.batches import Columns, Shape, filled
from recsys.models.matrix_factorization.data_parallel import Replicas
from recsys.models.matrix_factorization.network import Codes, Factors, Ratings, Rows, as_rows
from recsys.models.matrix_factorization.row_sharded import Shards
from recsys.models.matrix_factorization.sampler import Feed
from recsys.models.matrix_factorization.sgd import (
    PREDICTION_CHUNK,
    Course,
    Epoch,
    copy,
    mean_square,
    need_ratings,
    steady,
)

ABSENT = math.inf  # what was not measured, in a table of numbers: no measure is infinite, but an AUC may be NaN


def factorize(
    users: Codes,
    items: Codes,
    ratings: Ratings,
    n_users: int,
    n_items: int,
    *,
    context: Context,
    embedding_size: int,
    learning_rate: float,
    regularization: float,
    batch_size: int,
    epochs: int,
    patience: int,
    seed: int,
    validation: tuple[Codes, Codes, Ratings] | None = None,
    like_threshold: float | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Factors, list[Epoch], int]:
    """Trains as the function of the same name does, to the same numbers but for the order of sums.

    All processes of the context call it with the same arguments, which are described there; the columns may be mapped
    from files, of which each process reads its share. It goes on from the context's newest checkpoint. The factors are
    rank 0's; where tables are split, the arrays of the others have no rows. `on_epoch` and `like_threshold` count in
    rank 0.

    Raises:
        ValueError: there are no ratings to train on or to validate on, or a code is outside its table.
        DivergedError: the loss is no longer finite.
        StoppedError: the context was told to stop, and has saved a checkpoint.
    """
    need_ratings(ratings, validation)
    group, shape = context.group, Shape(n_users, n_items, embedding_size, batch_size)
    columns = users, items, ratings
    with torch.no_grad(), steady(group.device):
        mean, scale = _standard(group, ratings)
        engine = (Shards if context.sharding == "row" else Replicas)(group, shape, columns, regularization)
        course = Course(epochs, patience, learning_rate, scale)
        trained = Training(context, engine, course, Feed(len(ratings), batch_size, group, seed), validation is not None)
        trained.begin(seed)
        exam = validation and Exam(group, engine, shape, validation, (mean, scale), like_threshold)
        while not course.ended:
            started = time.perf_counter()
            own = trained.feed.rows(course.number)
            rows = as_rows(
                (users[own], items[own], ratings[own]), mean, scale, (n_users, n_items), group.device, unknown=False
            )
            train_mse = trained.epoch(rows)
            context.beat(course.number * trained.feed.batches, True)
            validation_mse, auc = exam.mark() if exam else (None, None)
            epoch = Epoch(
                course.number,
                time.perf_counter() - started,
                course.root(train_mse),
                None if validation_mse is None else course.root(validation_mse),
                auc,
            )
            trained.end_epoch(epoch, on_epoch)
        if trained.kept:
            copy(trained.kept, engine.network.parameters())
        return Factors(mean, **engine.collect(scale)), course.history, course.best


class Training:
    """A training under way: its engine, where it stands, and its checkpoints."""

    def __init__(
        self, context: Context, engine: Replicas | Shards, course: Course, feed: Feed, keeps_best: bool
    ) -> None:
        self.context, self.engine, self.course, self.feed = context, engine, course, feed
        self.batch = 0  # of the epoch, the one that is next
        self.total = 0.0  # square errors of the epoch so far
        self.kept = [torch.empty_like(p.detach()) for p in engine.network.parameters()] if keeps_best else []

    def epoch(self, rows: Rows) -> float:
        """The batches of an epoch that are left; returns its mean square error. `rows` are this process's."""
        context, feed = self.context, self.feed
        self.engine.pace(self.course.rate, feed.n_rows)
        while self.batch < feed.batches:
            number = self.batch
            step = (self.course.number - 1) * feed.batches + number
            context.beat(step, False)
            batch = filled(rows, feed.part(number), feed.most(number), feed.rows_in(number), self.engine.shape)
            context.beat(step, True)
            squares = self.engine.step(batch)
            # One message for both: the sum is then the same number in all processes, after a restart too.
            news = torch.stack([squares.double(), squares.new_tensor(context.is_told_to_stop(), dtype=torch.float64)])
            errors, stop = context.group.sum(news).tolist()
            self.total += errors
            self.batch += 1
            if stop:
                self.save()
                raise StoppedError(f"stopped in epoch {self.course.number} after batch {self.batch} of {feed.batches}")
            if context.checkpoints.is_due(at_epoch_end=False):
                self.save()
        return self.total / feed.n_rows

    def end_epoch(self, epoch: Epoch, on_epoch: Callable[[Epoch], None] | None) -> None:
        """Takes in what an epoch reached, tells rank 0's listener, and saves where that is due."""
        if self.course.add(epoch) and self.kept:
            copy(self.engine.network.parameters(), self.kept)
        self.batch, self.total = 0, 0.0
        if on_epoch and not self.context.group.rank:
            on_epoch(epoch)
        if self.context.checkpoints.is_due(at_epoch_end=True):
            self.save()

    def save(self) -> None:
        """A checkpoint of all that the next step depends on."""
        self.context.checkpoints.save(self._state())

    def begin(self, seed: int) -> None:
        """Goes on from the newest checkpoint, or starts where there is none."""
        state = self._state()
        if self.context.checkpoints.load(state) is None:
            self.engine.start(seed)
            return
        epochs, batch, self.total = state["place"].tolist()
        self.batch = int(batch)
        for number, seconds, train, *measured in state["history"][: int(epochs)].tolist():
            self.course.add(Epoch(int(number), seconds, train, *(None if m == ABSENT else m for m in measured)))

    def _tables(self) -> list[Tensor]:
        return [*(p.detach() for p in self.engine.network.parameters()), *self.kept]

    def _state(self) -> dict[str, Any]:
        """Tensors by name. The seed, and with it the order of the rows, is part of the job's digest."""
        names = [name for name, _ in self.engine.network.named_parameters()]
        labels = [f"{use}.{name}" for use in ("network", "best")[: 1 + bool(self.kept)] for name in names]
        history = torch.full((self.course.epochs, 5), ABSENT, dtype=torch.float64)
        for row, done in enumerate(self.course.history):
            values = done.number, done.seconds, done.train_rmse, done.validation_rmse, done.validation_auc
            history[row] = history.new_tensor([ABSENT if value is None else value for value in values])
        place = torch.tensor([len(self.course.history), self.batch, self.total], dtype=torch.float64)
        return dict(zip(labels, self._tables(), strict=True)) | {"history": history, "place": place}


class Exam:
    """The validation rows, predicted by shares and measured once, from all predictions, by rank 0."""

    def __init__(
        self,
        group: Group,
        engine: Replicas | Shards,
        shape: Shape,
        rows: Columns,
        unit: tuple[float, float],
        like_threshold: float | None,
    ) -> None:
        self.group, self.engine, self.n_rows = group, engine, len(rows[2])
        self.share = -(-self.n_rows // group.size)
        own = slice(group.rank * self.share, (group.rank + 1) * self.share)
        sizes = shape.n_users, shape.n_items
        known = as_rows((rows[0][own], rows[1][own], rows[2][own]), *unit, sizes, group.device, unknown=True)
        self.batch = filled(known, slice(None), self.share, self.n_rows, shape)
        self.ratings = rows[2] if group.rank == 0 else None
        self.unit, self.like_threshold = unit, like_threshold

    def mark(self) -> tuple[float, float | None]:
        """The mean square error in standardised units, and the AUC where a threshold was given."""
        parts = range(0, self.share, PREDICTION_CHUNK)
        pairs = [
            (self.batch.users[s : s + PREDICTION_CHUNK], self.batch.items[s : s + PREDICTION_CHUNK]) for s in parts
        ]
        predicted = torch.cat([self.engine.predict(users, items) for users, items in pairs])
        predicted = self.group.gather_even(predicted)[: self.n_rows]
        marks = torch.full((2,), ABSENT, dtype=torch.float64, device=self.group.device)
        if self.ratings is not None:
            mean, scale = self.unit
            standard = torch.from_numpy(((self.ratings - mean) / scale).astype(np.float32)).to(self.group.device)
            marks[0] = mean_square(predicted, standard)
            if self.like_threshold is not None:
                marks[1] = auc_by_ranks(self.ratings >= self.like_threshold, predicted.cpu().numpy())
        mse, auc = self.group.broadcast(marks).tolist()
        return mse, None if auc == ABSENT else auc


def _standard(group: Group, ratings: Ratings) -> tuple[float, float]:
    """Mean and standard deviation of all ratings, or 1 where all are alike; each process reads its share."""
    ends = np.linspace(0, len(ratings), group.size + 1, dtype=np.int64)
    share = np.asarray(ratings[ends[group.rank] : ends[group.rank + 1]], np.float64)

    def mean(values: Ratings) -> float:
        return float(group.sum(torch.tensor(values.sum(), dtype=torch.float64, device=group.device))) / len(ratings)

    center = mean(share)
    return center, math.sqrt(mean((share - center) ** 2)) or 1.0
