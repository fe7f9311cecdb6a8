"""The CPU's engine of matrix factorization: one rating after the other, in a loop that Numba compiles.

Koren's update, "Matrix factorization techniques for recommender systems", IEEE Computer 42(8), 2009, equation 5: each
rating moves its user's and its item's factors and bias at once. The penalty of a user or an item is weighed by how
often it was rated (`factors.frequency_weights`). There is no weight of each factor, as in sgd.py: it would stay
near 1, and what is learnt is as good without it.

One thread: the same seed gives the same numbers, whatever else the machine does.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.data.loader import BlockLoader
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import (
    INITIAL_SCALE,
    Factors,
    Float32Array,
    Int32Array,
    frequency_weights,
    standardise,
)
from recsys.models.matrix_factorization.schedule import Epoch
from recsys.models.matrix_factorization.training import Problem, run
from recsys.runtime.compilation import LANE, compile_loop

BLOCK = 64  # rows that stay together: an epoch has them in a new order, and reads memory forwards
FEWEST_BLOCKS = 1024  # of few rows; one row a block then
BIAS, PENALTY = 0, 1  # columns of a side's `scalars`

Int64Array = npt.NDArray[np.int64]
Piece = tuple[Int32Array, Int32Array, Float32Array, Int64Array, int]
"""Users, items and standardised ratings of some rows, the order of their blocks, and the number of rows in a block."""


@dataclass(frozen=True)
class Side:
    """The users or the items. The last row stands for every unknown one: its numbers are 0."""

    factors: Float32Array  # (n + 1, multiple of LANE), the last columns 0
    scalars: Float32Array  # (n + 1, 2): bias, penalty per rating
    counts: Float32Array  # (n + 1,): how often each was rated


def descend(
    users: Int32Array,
    items: Int32Array,
    ratings: Float32Array,
    order: Int64Array,
    block: int,
    user_factors: Float32Array,
    user_scalars: Float32Array,
    item_factors: Float32Array,
    item_scalars: Float32Array,
    rate: Any,
) -> float:
    """Learns from rows, a block after the other; gives the sum of their square errors, each from before its step."""
    width = user_factors.shape[1] // LANE * LANE  # so that the compiler knows: no rest
    total = 0.0
    for b in order:
        for row in range(b * block, min((b + 1) * block, len(users))):
            p, q = user_factors[users[row]], item_factors[items[row]]
            of_user, of_item = user_scalars[users[row]], item_scalars[items[row]]
            product = np.float32(0)
            for k in range(width):
                product += p[k] * q[k]
            error = ratings[row] - (product + (of_user[BIAS] + of_item[BIAS]))
            total += error * error
            step = rate * error
            keep_p, keep_q = np.float32(1) - rate * of_user[PENALTY], np.float32(1) - rate * of_item[PENALTY]
            of_user[BIAS] = keep_p * of_user[BIAS] + step
            of_item[BIAS] = keep_q * of_item[BIAS] + step
            for k in range(width):
                p_k, q_k = p[k], q[k]
                p[k] = keep_p * p_k + step * q_k
                q[k] = keep_q * q_k + step * p_k
    return total


def predict(
    users: Int32Array,
    items: Int32Array,
    user_factors: Float32Array,
    user_scalars: Float32Array,
    item_factors: Float32Array,
    item_scalars: Float32Array,
    predicted: Float32Array,
) -> None:
    """Writes the standardised ratings of pairs into `predicted`."""
    width = user_factors.shape[1] // LANE * LANE
    for row in range(len(users)):
        p, q = user_factors[users[row]], item_factors[items[row]]
        product = np.float32(0)
        for k in range(width):
            product += p[k] * q[k]
        predicted[row] = product + (user_scalars[users[row], BIAS] + item_scalars[items[row], BIAS])


@functools.cache
def kernels() -> tuple[Callable[..., float], Callable[..., None]]:
    """`descend` and `predict`, compiled."""
    codes, numbers = np.zeros(0, np.int32), np.zeros(0, np.float32)
    tables = [np.zeros((1, width), np.float32) for width in (LANE, 2, LANE, 2)]
    return (
        compile_loop(descend, codes, codes, numbers, np.zeros(0, np.int64), 1, *tables, np.float32(0)),
        compile_loop(predict, codes, codes, *tables, numbers),
    )


class CompiledEngine:
    """Whole tables in memory, and rows in memory or on disk."""

    def __init__(self, problem: Problem) -> None:
        self.descend, self.predict_rows = kernels()
        self.problem, (mean, scale), sizes = problem, problem.unit, problem.sizes
        rng = np.random.default_rng(problem.seed)
        self.source: RowsInMemory | RowsFromDisk
        if isinstance(problem.rows, BlockLoader):
            self.source = RowsFromDisk(problem.rows)
        else:
            self.source = RowsInMemory(standardise(problem.rows, mean, scale, sizes, unknown=False), sizes, rng)
        self.users, self.items = (_side(counts, problem.config, rng) for counts in self.source.counts)
        self.tables = self.users.factors, self.users.scalars, self.items.factors, self.items.scalars
        self.kept: list[Float32Array] = []
        if problem.validation is not None:
            self.held_out = standardise(problem.validation, mean, scale, sizes, unknown=True)

    def run_epoch(self, learning_rate: float, number: int) -> float:
        """Learns from every row once; gives the mean square error, of each row before the step that used it."""
        total = 0.0
        for piece in self.source.pieces(number):
            total += self.descend(*piece, *self.tables, np.float32(learning_rate))
        return total / self.source.n_rows

    def predict(self) -> Float32Array:
        """Standardised ratings of the validation rows, (n,)."""
        users, items, ratings = self.held_out
        predicted = np.empty_like(ratings)
        self.predict_rows(users, items, *self.tables, predicted)
        return predicted

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""
        if not self.kept:
            self.kept = [np.empty_like(table) for table in self.tables]
        for kept, table in zip(self.kept, self.tables, strict=True):
            kept[:] = table

    def restore(self) -> None:
        """Goes back to the tables that were kept."""
        for kept, table in zip(self.kept, self.tables, strict=True):
            table[:] = kept

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors`, in the unit of the ratings."""
        scale, size = np.float32(self.problem.unit[1]), self.problem.config.embedding_size
        rated = [(side.counts[:-1] > 0)[:, None] for side in (self.users, self.items)]  # others hold their first noise
        return {
            "user_bias": self.users.scalars[:-1, BIAS] * scale,
            "item_bias": self.items.scalars[:-1, BIAS] * scale,
            "user_factors": self.users.factors[:-1, :size] * scale * rated[0],
            "item_factors": self.items.factors[:-1, :size] * rated[1],
        }


class RowsInMemory:
    """Rows in memory, in an order that is drawn once; every epoch has its blocks in another order."""

    def __init__(
        self, rows: tuple[Int32Array, Int32Array, Float32Array], sizes: tuple[int, int], rng: np.random.Generator
    ) -> None:
        self.rng, self.n_rows = rng, len(rows[0])
        order = rng.permutation(self.n_rows)
        self.users, self.items, self.ratings = rows[0][order], rows[1][order], rows[2][order]
        self.counts = [np.bincount(codes, minlength=n + 1) for codes, n in zip(rows[:2], sizes, strict=True)]
        self.block = max(1, min(BLOCK, self.n_rows // FEWEST_BLOCKS))

    def pieces(self, epoch: int) -> Iterator[Piece]:
        """All rows once."""
        order = self.rng.permutation(-(-self.n_rows // self.block))
        yield self.users, self.items, self.ratings, order, self.block


class RowsFromDisk:
    """Rows that a loader reads anew in every epoch, in the order of its seed."""

    def __init__(self, loader: BlockLoader) -> None:
        self.loader, self.n_rows = loader, loader.n
        self.counts = [np.append(counts, 0) for counts in loader.counts]

    def pieces(self, epoch: int) -> Iterator[Piece]:
        """All rows once."""
        first = np.zeros(1, np.int64)
        for users, items, ratings in self.loader.epoch(epoch):
            standardised = ((ratings - self.loader.mean) / self.loader.scale).astype(np.float32)
            yield np.ascontiguousarray(users), np.ascontiguousarray(items), standardised, first, len(users)


def fit_factors(problem: Problem, on_epoch: Callable[[Epoch], None] | None = None) -> tuple[Factors, list[Epoch], int]:
    """Trains on the CPU, as `training.run` describes.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    return run(problem, CompiledEngine(problem), on_epoch)


def _side(counts: Int64Array, config: Config, rng: np.random.Generator) -> Side:
    size = config.embedding_size
    factors = np.zeros((len(counts), -(-size // LANE) * LANE), np.float32)
    factors[:-1, :size] = rng.standard_normal((len(counts) - 1, size), np.float32)
    factors *= INITIAL_SCALE
    as_float = counts.astype(np.float32)
    scalars = np.zeros((len(counts), 2), np.float32)
    scalars[:, PENALTY] = config.regularization * frequency_weights(as_float)
    return Side(factors, scalars, as_float)
