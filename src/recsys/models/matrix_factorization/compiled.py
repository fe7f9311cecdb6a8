"""The CPU's engine of matrix factorization: one rating after the other, in a loop that Numba compiles.

Koren's update, "Matrix factorization techniques for recommender systems", IEEE Computer 42(8), 2009, equation 5: each
rating moves its user's and its item's factors and bias at once. The penalty of a user or an item is weighed by how
often it was rated (`factors.frequency_weights`). There is no weight of each factor, as in sgd.py: it would stay
near 1, and what is learnt is as good without it.

Rows are learnt from by cells (grid.py), so that the same seed gives the same numbers for any number of threads and of
processes. A cell's rows of both tables stay in the processor's cache.
"""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.data.loader import BlockLoader
from recsys.models.matrix_factorization.factors import (
    INITIAL_SCALE,
    Factors,
    Float32Array,
    Int32Array,
    frequency_weights,
    standardise,
)
from recsys.models.matrix_factorization.grid import ITEMS, USERS, Cells, Grid, Int64Array, Turn, generator
from recsys.models.matrix_factorization.schedule import Epoch
from recsys.models.matrix_factorization.training import Problem, run
from recsys.runtime.compilation import LANE, available_threads, compile_loop

BIAS, PENALTY = 0, 1  # columns of a side's `scalars`
THREADED_ROWS = 500_000  # of fewer an epoch is over before a thread is awake
_READ = 1 << 20  # rows at a time


@dataclass(frozen=True)
class Side:
    """Blocks of users or of items. The last row of a block stands for every unknown one: its numbers are 0."""

    factors: Float32Array  # (blocks, rows, multiple of LANE), the last columns 0
    scalars: Float32Array  # (blocks, rows, 2): bias, penalty per rating
    counts: Float32Array  # (blocks, rows): how often each was rated


def descend(
    first: int,
    last: int,
    user_factors: Float32Array,
    user_scalars: Float32Array,
    item_factors: Float32Array,
    item_scalars: Float32Array,
    places: Int64Array,
    users: Int32Array,
    items: Int32Array,
    ratings: Float32Array,
    begins: Int64Array,
    ends: Int64Array,
    order: Int64Array,
    firsts: Int64Array,
    lasts: Int64Array,
    rate: Any,
    totals: Floats,
) -> None:
    """Learn from a turn's rows of the blocks of users from `first` to before `last`.

    Adds to `totals` of each block the square errors, each from before its step. `places` says for each block of users
    where the items' block is that it meets.
    """
    width = user_factors.shape[2] // LANE * LANE  # so that the compiler knows: no rest
    for block in range(first, last):
        p_of, b_of = user_factors[block], user_scalars[block]
        q_of, c_of = item_factors[places[block]], item_scalars[places[block]]
        total = 0.0
        for number in range(firsts[block], lasts[block]):
            run_of_rows = order[number]
            for row in range(begins[run_of_rows], ends[run_of_rows]):
                p, q = p_of[users[row]], q_of[items[row]]
                of_user, of_item = b_of[users[row]], c_of[items[row]]
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
        totals[block] += total


def predict(
    blocks: Int32Array,
    users: Int32Array,
    item_blocks: Int64Array,
    items: Int32Array,
    user_factors: Float32Array,
    user_scalars: Float32Array,
    item_factors: Float32Array,
    item_scalars: Float32Array,
    predicted: Float32Array,
) -> None:
    """Writes the standardised ratings of pairs into `predicted`."""
    width = user_factors.shape[2] // LANE * LANE
    for row in range(len(users)):
        p, q = user_factors[blocks[row], users[row]], item_factors[item_blocks[row], items[row]]
        product = np.float32(0)
        for k in range(width):
            product += p[k] * q[k]
        biases = user_scalars[blocks[row], users[row], BIAS] + item_scalars[item_blocks[row], items[row], BIAS]
        predicted[row] = product + biases


@functools.cache
def kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    """`descend` and `predict`, compiled."""
    codes, numbers, places = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    tables = [np.zeros((1, 1, width), np.float32) for width in (LANE, 2, LANE, 2)]
    rows = codes, codes, numbers, *[places] * 5
    return (
        compile_loop(descend, 0, 0, *tables, places, *rows, np.float32(0), np.zeros(0)),
        compile_loop(predict, codes, codes, places, codes, *tables, numbers),
    )


class CompiledEngine:
    """Blocks of users, and the blocks of items that they meet, in memory; rows in memory or on disk.

    Args:
        problem: what is to be learnt.
        own: the blocks of users that are learnt from here; None: all.
    """

    def __init__(self, problem: Problem, own: range | None = None) -> None:
        self.descend, self.predict_rows = kernels()
        self.problem = problem
        self.grid = Grid(1) if isinstance(problem.rows, BlockLoader) else Grid()
        self.own = range(self.grid.blocks) if own is None else own
        self.source = (
            RowsFromDisk(problem.rows) if isinstance(problem.rows, BlockLoader) else RowsInMemory(problem, self)
        )
        self.users, self.items = map(self._side, self.source.counts)
        self.tables = self.users.factors, self.users.scalars, self.items.factors, self.items.scalars
        self.where = np.arange(self.grid.blocks)  # each block of items is in `items`; -1: elsewhere
        self.shift = 0  # how far behind a block of users the block of items is that it meets
        self.kept: list[Float32Array] = []
        self.threads: ThreadPoolExecutor | None = None
        if problem.validation is not None:
            self.held_out = HeldOut(problem, self.own, self.grid)

    @property
    def places(self) -> Int64Array:
        """Where in `items` the block is that each block of users meets, (m,)."""
        return self.where[(np.arange(self.own.start, self.own.stop) + self.shift) % self.grid.blocks]

    def run_epoch(self, learning_rate: float, number: int) -> float:
        """Learns from every row once; gives the mean square error, of each row before the step that used it."""
        total = 0.0
        for shift, turn in self.source.turns(number):
            self.bring(shift)
            total += math.fsum(self.learn(turn, learning_rate))
        return total / self.source.n_rows

    def learn(self, turn: Turn, learning_rate: float) -> Floats:
        """Learns from a turn's rows; gives the sum of square errors of each block of users, (m,)."""
        totals, places = np.zeros(len(self.own)), self.places
        parts = 1 if self.threads is None else min(len(self.own), available_threads())

        def work(part: int) -> None:
            first, last = (len(self.own) * end // parts for end in (part, part + 1))
            self.descend(first, last, *self.tables, places, *turn, np.float32(learning_rate), totals)

        if self.threads is None:
            work(0)
        else:
            list(self.threads.map(work, range(parts)))
        return totals

    def bring(self, shift: int) -> None:
        """Have beside each block of users the items that are so far behind. Here all are at hand."""
        self.shift = shift

    def predict(self) -> Float32Array:
        """Standardised ratings of the validation rows, (n,)."""
        predicted = np.empty(len(self.held_out.rows), np.float32)
        predicted[self.held_out.rows] = self.predict_own()
        return predicted

    def predict_own(self) -> Float32Array:
        """Those of the users that are here, in the order of `held_out.rows`."""
        held_out = self.held_out
        predicted = np.empty(len(held_out.rows), np.float32)
        for step in range(self.grid.blocks):
            self.bring((self.shift + (step > 0)) % self.grid.blocks)
            part = slice(*held_out.ends[self.shift : self.shift + 2])
            items = self.where[held_out.of_item[part]]
            pairs = held_out.of_user[part], held_out.users[part], items, held_out.items[part]
            self.predict_rows(*pairs, *self.tables, predicted[part])
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
        return export_arrays(self.problem, self.grid, self.users, self.items)

    def of_all(self, number: int) -> int:
        """The sum of what each process has."""
        return number

    def initialize(self) -> "CompiledEngine":
        """Fills the tables with initial values, a block with the same whoever has it."""
        size = self.problem.config.embedding_size
        for side, use in ((self.users, USERS), (self.items, ITEMS)):
            for block, factors in zip(self.own, side.factors, strict=True):
                drawn = generator(self.problem.seed, use, block).standard_normal((len(factors) - 1, size), np.float32)
                factors[:-1, :size] = INITIAL_SCALE * drawn
            side.scalars[:, :, BIAS] = 0
        return self

    def _side(self, counts: Int64Array) -> Side:
        """Tables for blocks whose rows were rated so often, (blocks, rows)."""
        config, mean = self.problem.config, self.source.n_rows / self.of_all(int((counts > 0).sum()))
        factors = np.zeros((*counts.shape, -(-config.embedding_size // LANE) * LANE), np.float32)
        scalars, as_float = np.zeros((*counts.shape, 2), np.float32), counts.astype(np.float32)
        scalars[:, :, PENALTY] = config.regularization * frequency_weights(as_float, mean)
        return Side(factors, scalars, as_float)


def export_arrays(problem: Problem, grid: Grid, users: Side, items: Side) -> dict[str, Float32Array]:
    """The arrays of `Factors`, in the unit of the ratings, from all blocks in their order."""
    scale, width = np.float32(problem.unit[1]), problem.config.embedding_size
    found = {}
    for name, side, size, unit in zip(
        ("user", "item"), (users, items), problem.sizes, (scale, np.float32(1)), strict=True
    ):
        places = grid.place(np.arange(size))
        rated = side.counts[places] > 0  # others hold their first noise
        found[f"{name}_bias"] = side.scalars[(*places, BIAS)] * scale
        found[f"{name}_factors"] = side.factors[places][:, :width] * (rated * unit)[:, None]
    return found


class HeldOut:
    """The validation rows of some blocks of users, in the order in which their items come by."""

    def __init__(self, problem: Problem, own: range, grid: Grid) -> None:
        assert problem.validation is not None
        users, items, _ = standardise(problem.validation, *problem.unit, problem.sizes, unknown=True)
        unknown = [codes == size for codes, size in zip((users, items), problem.sizes, strict=True)]
        (of_user, users), (of_item, items) = (
            grid.place(np.where(none, 0, codes)) for none, codes in zip(unknown, (users, items), strict=True)
        )
        users[unknown[0]], items[unknown[1]] = (grid.rows(size) - 1 for size in problem.sizes)
        shift = (of_item - of_user) % grid.blocks
        here = np.flatnonzero((of_user >= own.start) & (of_user < own.stop))
        self.rows = here[np.argsort(shift[here], kind="stable")]  # which of the validation rows, (n,)
        self.ends = np.append(0, np.cumsum(np.bincount(shift[here], minlength=grid.blocks)))
        self.of_user, self.users = of_user[self.rows] - np.int32(own.start), users[self.rows]
        self.of_item, self.items = of_item[self.rows], items[self.rows]


class RowsInMemory:
    """The rows of an engine's own blocks of users, and how often its users and its items were rated."""

    def __init__(self, problem: Problem, engine: CompiledEngine) -> None:
        assert isinstance(problem.rows, Interactions)
        self.n_rows, self.seed, self.grid, own = len(problem.rows), problem.seed, engine.grid, engine.own
        shapes = [(len(own), engine.grid.rows(size)) for size in problem.sizes]
        counts = [np.zeros(shape, np.int64) for shape in shapes]
        found = []
        for start in range(0, self.n_rows, _READ):
            part = standardise(problem.rows[start : start + _READ], *problem.unit, problem.sizes, unknown=False)
            for codes, counted in zip(part[:2], counts, strict=True):
                block, row = engine.grid.place(codes)
                here = (block >= own.start) & (block < own.stop)
                places = (block[here] - own.start) * counted.shape[1] + row[here]
                counted += np.bincount(places, minlength=counted.size).reshape(counted.shape)
            of_user = part[0] % engine.grid.blocks
            here = (of_user >= own.start) & (of_user < own.stop)
            found.append([column[here] for column in part])
        rows = [np.concatenate(column) for column in zip(*found, strict=True)]
        self.counts = counts
        self.cells = Cells((rows[0], rows[1], rows[2]), own, engine.grid, self.n_rows, problem.seed)

    def turns(self, epoch: int) -> Iterator[tuple[int, Turn]]:
        """All rows once."""
        order = self.cells.order(epoch)
        for shift in self.grid.shifts(self.seed, epoch):
            yield shift, self.cells.turn(order, shift)


class RowsFromDisk:
    """Rows that a loader reads anew in every epoch, in the order of its seed: one block of users, and one of items."""

    def __init__(self, loader: BlockLoader) -> None:
        self.loader, self.n_rows = loader, loader.n
        self.counts = [np.append(counts, 0)[None] for counts in loader.counts]

    def turns(self, epoch: int) -> Iterator[tuple[int, Turn]]:
        """All rows once."""
        none, one = np.zeros(1, np.int64), np.ones(1, np.int64)
        for users, items, ratings in self.loader.epoch(epoch):
            standardised = ((ratings - self.loader.mean) / self.loader.scale).astype(np.float32)
            columns = np.ascontiguousarray(users), np.ascontiguousarray(items), standardised
            yield 0, Turn(*columns, none, one * len(users), none, none, one)


def fit_factors(problem: Problem, on_epoch: Callable[[Epoch], None] | None = None) -> tuple[Factors, list[Epoch], int]:
    """Trains on the CPU, as `training.run` describes.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    engine = CompiledEngine(problem).initialize()
    if engine.source.n_rows < THREADED_ROWS or len(engine.own) == 1 or available_threads() == 1:
        return run(problem, engine, on_epoch)
    with ThreadPoolExecutor(available_threads()) as engine.threads:
        return run(problem, engine, on_epoch)
