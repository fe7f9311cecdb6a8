"""Ratings in cells, blocks of users by blocks of items: cells that share no block can be learnt from at the same time.

As in Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic gradient
descent", KDD 2011. An epoch has as many turns as there are blocks. In a turn each block of users meets one block of
items, and in an epoch every block of items once. Which cells are computed where, and when within a turn, does not
change a number.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.models.base.padding import stable_argsort
from recsys.models.matrix_factorization.factors import Float32Array, Int32Array

BLOCKS = 16  # of users, and of items
RUN = 64  # rows of a cell that stay together: an epoch has them in a new order, and reads memory forwards
FEWEST_RUNS = 1024  # of few rows; one row a run then

TURNS, RUNS, ROWS, USERS, ITEMS = range(5)  # what random numbers are drawn for

Int64Array = npt.NDArray[np.int64]


def generator(seed: int, *use: int) -> np.random.Generator:
    """Random numbers for one use: the same in whatever process."""
    return np.random.default_rng((seed, *use))


@dataclass(frozen=True)
class Grid:
    """How codes are cut into blocks: in turns, so that blocks are alike whatever the order of the codes says."""

    blocks: int = BLOCKS

    def place(self, codes: npt.NDArray[np.integer]) -> tuple[Int32Array, Int32Array]:
        """The block of each code, and its row there."""
        codes = codes.astype(np.int32, copy=False)
        rows = codes // np.int32(self.blocks)
        return codes - rows * np.int32(self.blocks), rows

    def rows(self, size: int) -> int:
        """Rows of a block of a table of so many. No code has the last one, which stands for what is unknown."""
        return -(-size // self.blocks) + 1

    def shifts(self, seed: int, epoch: int) -> list[int]:
        """For each turn of an epoch, how far behind a block of users the block of items is that it meets."""
        return list(map(int, generator(seed, TURNS, epoch).permutation(self.blocks)))


class Turn(NamedTuple):
    """What is learnt from in a turn: some runs of rows for each block of users."""

    users: Int32Array  # (n,) rows in their blocks
    items: Int32Array
    ratings: Float32Array  # standardised
    begins: Int64Array  # of each run
    ends: Int64Array
    order: Int64Array  # of the runs
    firsts: Int64Array  # (m,) where in `order` the runs of a block of users begin
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
        within = np.arange(len(cell)) - self.first_run[cell]
        ends = np.cumsum(counts)
        self.begins = (ends - counts)[cell] + within * length
        self.ends = np.minimum(self.begins + length, ends[cell])
        self.cell = cell.astype(np.uint64)
        self.name = ((self.cell + np.uint64(own.start * grid.blocks)) << np.uint64(32)) + within.astype(np.uint64)

    def order(self, epoch: int) -> Int64Array:
        """The runs as they follow each other in an epoch, those of a cell together."""
        drawn = _scatter(self.name + generator(self.seed, RUNS, epoch).integers(1 << 63, dtype=np.uint64))
        return np.argsort((self.cell << np.uint64(40)) | (drawn >> np.uint64(24)))

    def turn(self, order: Int64Array, shift: int) -> Turn:
        """The cells in which blocks of users meet those of items that are so far behind."""
        met = (
            np.arange(len(self.own)) * self.grid.blocks
            + (np.arange(self.own.start, self.own.stop) + shift) % self.grid.blocks
        )
        firsts, lasts = self.first_run[met], self.first_run[met + 1]
        return Turn(self.users, self.items, self.ratings, self.begins, self.ends, order, firsts, lasts)


def _scatter(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The numbers of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) for these states: neighbours are far apart."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
