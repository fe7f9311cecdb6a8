"""The CPU's engine of matrix factorization: one rating after the other, in a loop that Numba compiles.

Koren's update, "Matrix factorization techniques for recommender systems", IEEE Computer 42(8), 2009, equation 5: each
rating moves its user's and its item's factors and bias at once. The penalty of a user or an item is weighed by how
often it was rated (`factors.frequency_weights`). There is no weight of each factor, as in sgd.py: it would stay
near 1, and what is learnt is as good without it.

Rows are learnt from by cells (grid.py), so that the same seed gives the same numbers for any number of threads and of
processes. A cell's rows of both tables stay in the processor's cache.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from recsys.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.data.loader import BlockLoader
from recsys.models.base.family import Memo
from recsys.models.matrix_factorization.cells import RUN, Cells, Turns
from recsys.models.matrix_factorization.factors import (
    INITIAL_SCALE,
    Factors,
    Float32Array,
    Int32Array,
    frequency_weights,
    standardise,
)
from recsys.models.matrix_factorization.grid import (
    ITEMS,
    USERS,
    Grid,
    Int64Array,
    generator,
    share,
    strides,
)
from recsys.models.matrix_factorization.schedule import Epoch
from recsys.models.matrix_factorization.training import Problem, run
from recsys.runtime.compilation import LANE, aligned_zeros, available_threads, compile_loop, part_of_loop
from recsys.runtime.lines import fetch, inner_product, mix_lines
from recsys.runtime.threads import side_by_side

BIAS, PENALTY = 0, 1  # columns of a side's `scalars`
THREADED_ROWS = 1 << 16  # of fewer, to wake a thread takes longer than it saves
AHEAD = 8  # rows, by which tables' rows are on their way to the cache before they are needed
NEAR_LINES = 1 << 14  # of a cell's factors: 1 MB, so few that they are in the cache anyway
_READ = 1 << 20  # rows at a time


@dataclass(frozen=True)
class Side:
    """Blocks of users or of items. The last row of a block stands for every unknown one: its numbers are 0."""

    factors: Float32Array  # (blocks, rows, multiple of LANE), the last columns 0
    scalars: Float32Array  # (blocks, rows, 2): bias, penalty per rating
    counts: Float32Array  # (blocks, rows): how often each was rated


@part_of_loop  # type: ignore[untyped-decorator]
def fetch_row(factors: Float32Array, scalars: Float32Array, row: int, width: int) -> None:
    """Have a row of a side's tables, counted through all blocks, on the way to the cache."""
    for line in range(width):
        fetch(factors, (row * width + line) * LANE)
    fetch(scalars, row * 2)


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
    """Learn from the rows of some turns, of the blocks of users from `first` to before `last`.

    Writes to `totals`, (turns, m), the square errors, each from before its step. `places`, (turns, m), says where the
    items' block is that a block of users meets.
    """
    width = user_factors.shape[2] // LANE
    is_far = (user_factors.shape[1] + item_factors.shape[1]) * width > NEAR_LINES
    for turn in range(len(places)):
        for block in range(first, last):
            place, end = places[turn, block], lasts[turn, block]
            users_before, items_before = block * user_factors.shape[1], place * item_factors.shape[1]
            total = 0.0
            for number in range(firsts[turn, block], end):
                coming = begins[order[min(number + 1, end - 1)]]
                for line in range(0, RUN, LANE):
                    fetch(users, coming + line)
                    fetch(items, coming + line)
                    fetch(ratings, coming + line)
                end_of_run = ends[order[number]]
                for row in range(begins[order[number]], end_of_run):
                    if is_far:
                        later = min(row + AHEAD, end_of_run - 1)
                        fetch_row(user_factors, user_scalars, users_before + np.int64(users[later]), width)
                        fetch_row(item_factors, item_scalars, items_before + np.int64(items[later]), width)
                    u, i = np.int64(users[row]), np.int64(items[row])
                    p, q = (users_before + u) * width, (items_before + i) * width
                    of_user, of_item = user_scalars[block, u], item_scalars[place, i]
                    product = inner_product(user_factors, p, item_factors, q, width)
                    error = ratings[row] - (product + (of_user[BIAS] + of_item[BIAS]))
                    total += error * error
                    step = rate * error
                    keep_p, keep_q = np.float32(1) - rate * of_user[PENALTY], np.float32(1) - rate * of_item[PENALTY]
                    of_user[BIAS] = keep_p * of_user[BIAS] + step
                    of_item[BIAS] = keep_q * of_item[BIAS] + step
                    mix_lines(user_factors, p, item_factors, q, width, keep_p, keep_q, step)
            totals[turn, block] = total


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
    width = user_factors.shape[2] // LANE
    for row in range(len(users)):
        p = (np.int64(blocks[row]) * user_factors.shape[1] + users[row]) * width
        q = (item_blocks[row] * item_factors.shape[1] + items[row]) * width
        product = inner_product(user_factors, p, item_factors, q, width)
        biases = user_scalars[blocks[row], users[row], BIAS] + item_scalars[item_blocks[row], items[row], BIAS]
        predicted[row] = product + biases


@cache
def kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    """`descend` and `predict`, compiled."""
    codes, numbers, places = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    tables = [np.zeros((1, 1, width), np.float32) for width in (LANE, 2, LANE, 2)]
    of_turns = np.zeros((0, 0), np.int64)
    rows = codes, codes, numbers, *[places] * 3, *[of_turns] * 2
    return (
        compile_loop(descend, 0, 0, *tables, of_turns, *rows, np.float32(0), np.zeros((0, 0))),
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
        self.problem, memo = problem, problem.memo or Memo()
        self.grid = Grid(1) if isinstance(problem.rows, BlockLoader) else Grid()
        self.own = range(self.grid.blocks) if own is None else own
        self.source = (
            RowsFromDisk(problem.rows)
            if isinstance(problem.rows, BlockLoader)
            else memo.once((RowsInMemory, self.own, problem.seed), lambda: RowsInMemory(problem, self))
        )
        self.users, self.items = map(self._side, self.source.counts)
        self.tables = self.users.factors, self.users.scalars, self.items.factors, self.items.scalars
        self.where = np.arange(self.grid.blocks)  # each block of items is in `items`; -1: elsewhere
        self.shift = 0  # those that blocks of users met in a turn of this shift are here
        self.stride = self.grid.blocks  # turns, from a multiple of it, in which the same blocks of items are met here
        self.kept: list[Float32Array] = []
        rows_here = self.source.n_rows * len(self.own) // self.grid.blocks
        self.use_threads(available_threads() if rows_here >= THREADED_ROWS else 1)
        if problem.validation is not None:
            self.held_out = memo.once((HeldOut, self.own), lambda: HeldOut(problem, self.own, self.grid))

    def use_threads(self, number: int) -> None:
        """Learn on so many threads from now on, if there is a block for each."""
        self.parts, self.thread_stride = share(self.own, max(1, min(number, len(self.own))))
        self.threads = ThreadPoolExecutor(max(1, len(self.parts) - 1))  # the thread that calls takes the first part

    def places(self, shifts: Int64Array) -> Int64Array:
        """Where in `items` the block is that each block of users meets in turns of these shifts, (turns, m)."""
        places: Int64Array = self.where[np.arange(self.own.start, self.own.stop) ^ shifts[:, None]]
        return places

    def run_epoch(self, learning_rate: float, number: int) -> float:
        """Learns from every row once; gives the mean square error, of each row before the step that used it."""
        total = 0.0
        for first, shifts, turns in self.source.turns(number, self.stride):
            for errors in self.learn(first, shifts, turns, learning_rate).tolist():
                total += math.fsum(errors)
        return total / self.source.n_rows

    def learn(self, first: int, shifts: Int64Array, turns: Turns, learning_rate: float) -> Floats:
        """Learns from the rows of turns, of which the first has this number in its epoch.

        Gives the sum of square errors of each turn and block of users, (turns, m).
        """
        totals, places = np.zeros((len(shifts), len(self.own))), self.places(shifts)
        for now in strides(first, first + len(shifts), self.thread_stride):
            some = slice(now.start - first, now.stop - first)
            here = turns._replace(firsts=turns.firsts[some], lasts=turns.lasts[some])
            arguments = *self.tables, places[some], *here, np.float32(learning_rate), totals[some]
            side_by_side(self.threads, [partial(self._learn, arguments, part) for part in self.parts])
        return totals

    def _learn(self, arguments: tuple[Any, ...], part: range) -> None:
        self.descend(part.start - self.own.start, part.stop - self.own.start, *arguments)

    def bring(self, shift: int) -> None:
        """Have here the blocks of items that a turn of this shift needs. Here all are at hand."""
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
        here = self.shift // self.stride
        for other in range(self.grid.blocks // self.stride):
            self.bring((here ^ other) * self.stride)
            part = slice(*held_out.ends[[self.shift, self.shift + self.stride]])
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
        factors = aligned_zeros(*counts.shape, -(-config.embedding_size // LANE) * LANE)
        scalars, as_float = aligned_zeros(*counts.shape, 2), counts.astype(np.float32)
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
        shift = of_item ^ of_user
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
        rated = [np.zeros(size, np.int64) for size in problem.sizes]
        found = []
        for start in range(0, self.n_rows, _READ):
            part = standardise(problem.rows[start : start + _READ], *problem.unit, problem.sizes, unknown=False)
            for codes, counts in zip(part[:2], rated, strict=True):
                counts += np.bincount(codes, minlength=len(counts))
            found.append(part if len(own) == self.grid.blocks else _rows_of(own, part, self.grid))
        rows = [np.concatenate(column) if len(column) > 1 else column[0] for column in zip(*found, strict=True)]
        self.counts = [self.grid.cut(counts)[own.start : own.stop] for counts in rated]
        self.cells = Cells((rows[0], rows[1], rows[2]), own, engine.grid, self.n_rows, problem.seed)

    def turns(self, epoch: int, stride: int, first: int = 0) -> Iterator[tuple[int, Int64Array, Turns]]:
        """The rows of an epoch, from a turn on: as many turns at a time as fit, with the first one's number."""
        order, shifts = self.cells.order(epoch), self.grid.shifts(self.seed, epoch)
        for now in strides(first, len(shifts), stride):
            some = shifts[now.start : now.stop]
            yield now.start, some, self.cells.turns(order, some)


def _rows_of(
    own: range, rows: tuple[Int32Array, Int32Array, Float32Array], grid: Grid
) -> tuple[Int32Array, Int32Array, Float32Array]:
    of_user, _ = grid.place(rows[0])
    here = (of_user >= own.start) & (of_user < own.stop)
    return rows[0][here], rows[1][here], rows[2][here]


class RowsFromDisk:
    """Rows that a loader reads anew in every epoch, in the order of its seed: one block of users, and one of items."""

    def __init__(self, loader: BlockLoader) -> None:
        self.loader, self.n_rows = loader, loader.n
        self.counts = [np.append(counts, 0)[None] for counts in loader.counts]

    def turns(self, epoch: int, stride: int, first: int = 0) -> Iterator[tuple[int, Int64Array, Turns]]:
        """All rows once, some at a time, each time as the one turn of a single block."""
        none, one, shifts = np.zeros(1, np.int64), np.ones(1, np.int64), np.zeros(1, np.int64)
        for users, items, ratings in self.loader.epoch(epoch):
            standardised = ((ratings - self.loader.mean) / self.loader.scale).astype(np.float32)
            columns = np.ascontiguousarray(users), np.ascontiguousarray(items), standardised
            yield 0, shifts, Turns(*columns, none, one * len(users), none, none[None], one[None])


def fit_factors(problem: Problem, on_epoch: Callable[[Epoch], None] | None = None) -> tuple[Factors, list[Epoch], int]:
    """Trains on the CPU, as `training.run` describes.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    return run(problem, CompiledEngine(problem).initialize(), on_epoch)
