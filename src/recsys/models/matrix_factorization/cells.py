"""The rows of a grid's cells, and the order in which an epoch has them."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.models.matrix_factorization.factors import Float32Array, Int32Array
from recsys.models.matrix_factorization.grid import ROWS, RUNS, Grid, Int64Array, generator
from recsys.runtime.compilation import compile_loop

RUN = 64  # rows of a cell that stay together: an epoch has them in a new order, and reads memory forwards
FEWEST_RUNS = 1024  # of few rows; one row a run then

_BITS = np.uint64(28)  # of the number of a run in its cell, which so has at most 17 billion rows


class Turns(NamedTuple):
    """What is learnt from in turns that follow each other: some runs of rows for each turn and block of users."""

    users: Int32Array  # (n,) rows in their blocks
    items: Int32Array
    ratings: Float32Array  # standardised
    begins: Int64Array  # of each run
    ends: Int64Array
    order: Int64Array  # of the runs
    firsts: Int64Array  # (turns, m) where in `order` the runs of a block of users begin
    lasts: Int64Array


def sort_rows(
    users: Int32Array,
    items: Int32Array,
    ratings: Int32Array,
    own: int,
    bits: int,
    order: Int64Array,
    begins: Int64Array,
    firsts: Int64Array,
    sorted_users: Int32Array,
    sorted_items: Int32Array,
    sorted_ratings: Int32Array,
) -> None:
    """Writes rows cell by cell, with codes as rows of their blocks.

    Args:
        users: codes, (n,).
        items: codes, (n,).
        ratings: float32, taken for whole numbers.
        own: the first block of users.
        bits: of the number of a block.
        order: in which the rows of each block of users come to their cells, (n,).
        begins: of the rows of each block of users, (m + 1,); the last is n.
        firsts: where each cell's rows begin, (m, blocks of items).
        sorted_users: of the sorted rows; likewise the others.
    """
    # By blocks of users first: what is read and written in no order then stays in the processor's cache.
    by_user, nexts, last = np.empty((len(users), 4), np.int32), begins.copy(), (1 << bits) - 1
    for row in range(len(users)):
        block = (users[row] & last) - own
        at = nexts[block]
        by_user[at, 0], by_user[at, 1] = users[row] >> bits, items[row] >> bits
        by_user[at, 2], by_user[at, 3] = ratings[row], items[row] & last
        nexts[block] = at + 1
    for block in range(len(firsts)):
        nexts = firsts[block].copy()
        for place in range(begins[block], begins[block + 1]):
            at = begins[block] + order[place]
            to = nexts[by_user[at, 3]]
            nexts[by_user[at, 3]] = to + 1
            sorted_users[to], sorted_items[to], sorted_ratings[to] = by_user[at, 0], by_user[at, 1], by_user[at, 2]


@cache
def sorter() -> Callable[..., None]:
    """`sort_rows`, compiled."""
    codes, places = np.zeros(0, np.int32), np.zeros(1, np.int64)
    return compile_loop(sort_rows, *[codes] * 3, 0, 0, places, places, np.zeros((0, 0), np.int64), *[codes] * 3)


class Cells:
    """The rows of some blocks of users, cell by cell.

    Args:
        rows: users, items and standardised ratings of these blocks, (n,) each.
        own: the blocks of users.
        grid: of all blocks.
        n_rows: of all blocks, by which the length of a run is found.
        seed: of the orders of rows. They are the same whoever has the blocks.
    """

    def __init__(
        self, rows: tuple[Int32Array, Int32Array, Float32Array], own: range, grid: Grid, n_rows: int, seed: int
    ) -> None:
        self.own, self.grid, self.seed = own, grid, seed
        users, items, ratings = rows
        self.users, self.items, self.ratings = np.empty_like(users), np.empty_like(items), np.empty_like(ratings)
        bits, last = grid.blocks.bit_length() - 1, grid.blocks - 1
        # A cell's number, of at most 16 blocks by 16, fits into a byte.
        of_user, of_item = users.astype(np.uint8) & last, items.astype(np.uint8) & last
        counts = np.bincount((of_user - own.start << bits) | of_item, minlength=len(own) * grid.blocks)
        ends = np.cumsum(counts)
        begins = np.append(0, ends[last :: grid.blocks])  # of the rows of each block of users
        drawn = (generator(seed, ROWS, block).permutation(n) for block, n in zip(own, np.diff(begins), strict=True))
        order = np.concatenate([np.zeros(0, np.int64), *drawn])
        of_rows = users, items, ratings.view(np.int32), own.start, bits, order, begins
        firsts = (ends - counts).reshape(len(own), grid.blocks)
        sorter()(*of_rows, firsts, self.users, self.items, self.ratings.view(np.int32))
        length = max(1, min(RUN, n_rows // FEWEST_RUNS))
        runs = -(-counts // length)
        self.first_run = np.append(0, np.cumsum(runs))  # of each cell
        cell = np.repeat(np.arange(len(counts)), runs)
        self.first_of_cell: Int64Array = self.first_run[cell]
        within = np.arange(len(cell)) - self.first_of_cell
        self.begins = (ends - counts)[cell] + within * length
        self.ends = np.minimum(self.begins + length, ends[cell])
        self.cell = (cell.astype(np.uint64) + np.uint64(own.start * grid.blocks)) << _BITS
        self.within = within.astype(np.uint64)

    def order(self, epoch: int) -> Int64Array:
        """The runs as they follow each other in an epoch, those of a cell together."""
        of_epoch = generator(self.seed, RUNS, epoch).integers(1 << 63, dtype=np.uint64)
        drawn = _scatter((self.cell | self.within) + of_epoch) >> (np.uint64(64) - _BITS)
        # A cell, what is drawn, and a run are one number: to sort takes a quarter of the time of argsort.
        together = np.sort(((self.cell | drawn) << _BITS) | self.within)
        within = (together & ((np.uint64(1) << _BITS) - np.uint64(1))).astype(np.int64)
        return self.first_of_cell + within

    def turns(self, order: Int64Array, shifts: Int64Array) -> Turns:
        """The cells in which blocks of users meet those of items in turns of these shifts."""
        own = np.arange(self.own.start, self.own.stop)
        met = (own - self.own.start) * self.grid.blocks + (own ^ shifts[:, None])
        firsts, lasts = self.first_run[met], self.first_run[met + 1]
        return Turns(self.users, self.items, self.ratings, self.begins, self.ends, order, firsts, lasts)


def _scatter(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The numbers of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) for these states: neighbours are far apart."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
