"""Ratings in cells, blocks of users by blocks of items: cells that share no block can be learnt from at the same time.

As in Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic gradient
descent", KDD 2011. An epoch has as many turns as there are blocks. In a turn block b of users meets block b XOR s of
items, s being the turn's shift, and in an epoch every block of items once. Which cells are computed where, and when
within a turn, does not change a number.

The first half of an epoch's shifts agree in their highest bit, and so does the second; the halves of each half agree in
the next bit, and so on. So in each 2^k turns, from a multiple of it, 2^k blocks of users from a multiple of it meet the
same 2^k blocks of items: who has these blocks needs none of others meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.models.base.padding import stable_argsort
from recsys.models.matrix_factorization.factors import Float32Array, Int32Array

BLOCKS = 16  # of users, and of items
RUN = 64  # rows of a cell that stay together: an epoch has them in a new order, and reads memory forwards
FEWEST_RUNS = 1024  # of few rows; one row a run then

_BITS = np.uint64(28)  # of the number of a run in its cell, which so has at most 17 billion rows
TURNS, RUNS, ROWS, USERS, ITEMS = range(5)  # what random numbers are drawn for

Int64Array = npt.NDArray[np.int64]


def generator(seed: int, *use: int) -> np.random.Generator:
    """Random numbers for one use: the same in whatever process."""
    return np.random.default_rng((seed, *use))


@dataclass(frozen=True)
class Grid:
    """How codes are cut into blocks: in turns, so that blocks are alike whatever the order of the codes says."""

    blocks: int = BLOCKS  # a power of two

    def place(self, codes: npt.NDArray[np.integer]) -> tuple[Int32Array, Int32Array]:
        """The block of each code, and its row there."""
        codes = codes.astype(np.int32, copy=False)
        rows = codes // np.int32(self.blocks)
        return codes - rows * np.int32(self.blocks), rows

    def rows(self, size: int) -> int:
        """Rows of a block of a table of so many. No code has the last one, which stands for what is unknown."""
        return -(-size // self.blocks) + 1

    def shifts(self, seed: int, epoch: int) -> Int64Array:
        """The shift of each turn of an epoch, (blocks,)."""
        random, shifts, bit = generator(seed, TURNS, epoch), np.zeros(1, np.int64), self.blocks // 2
        while bit:
            drawn = bit * random.integers(2, size=len(shifts))
            shifts, bit = np.stack([shifts + drawn, shifts + (bit - drawn)], axis=1).reshape(-1), bit // 2
        return shifts


def share(own: range, parts: int) -> tuple[list[range], int]:
    """Blocks for each of some threads or processes: as DTensor has it, equally many until none is left.

    Also the stride, a power of two: in so many turns from a multiple of it, each meets the same blocks of items.
    """
    most = -(-len(own) // parts)
    bounds = [min(own.stop, own.start + part * most) for part in range(parts + 1)]
    bits = reduce(or_, bounds)
    return [range(first, last) for first, last in pairwise(bounds)], bits & -bits


def strides(first: int, end: int, stride: int) -> Iterator[range]:
    """The numbers from `first` to before `end`, cut at the multiples of `stride`."""
    while first < end:
        after = min(end, (first // stride + 1) * stride)
        yield range(first, after)
        first = after


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
        (of_user, users), (of_item, items), ratings = grid.place(rows[0]), grid.place(rows[1]), rows[2]
        of_user -= own.start
        by_user = stable_argsort(of_user)
        edges = np.append(0, np.cumsum(np.bincount(of_user, minlength=len(own))))
        order = np.empty_like(by_user)
        for block, first, last in zip(own, edges[:-1], edges[1:], strict=True):
            order[first:last] = by_user[first + generator(seed, ROWS, block).permutation(last - first)]
        cells = (of_user * grid.blocks + of_item).astype(np.uint16)
        order = order[stable_argsort(cells[order])]
        self.users, self.items, self.ratings = users[order], items[order], ratings[order]
        counts = np.bincount(cells, minlength=len(own) * grid.blocks)
        length = max(1, min(RUN, n_rows // FEWEST_RUNS))
        runs = -(-counts // length)
        self.first_run = np.append(0, np.cumsum(runs))  # of each cell
        cell = np.repeat(np.arange(len(counts)), runs)
        self.first_of_cell: Int64Array = self.first_run[cell]
        within = np.arange(len(cell)) - self.first_of_cell
        ends = np.cumsum(counts)
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
