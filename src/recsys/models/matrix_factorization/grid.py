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
from itertools import chain, pairwise
from operator import or_

import numpy as np
import numpy.typing as npt

from recsys.models.matrix_factorization.factors import Int32Array

BLOCKS = 16  # of users, and of items
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

    def cut(self, table: Int64Array) -> Int64Array:
        """A table's numbers, block by block: (blocks, rows of a block), 0 where there is none."""
        cut = np.zeros((self.rows(len(table)), self.blocks), np.int64)
        cut.reshape(-1)[: len(table)] = table
        return cut.T

    def rows(self, size: int) -> int:
        """Rows of a block of a table of so many. No code has the last one, which stands for what is unknown."""
        return -(-size // self.blocks) + 1

    def shifts(self, seed: int, epoch: int) -> Int64Array:
        """The shift of each turn of an epoch, (blocks,)."""
        drawn = iter(generator(seed, TURNS, epoch).integers(2, size=self.blocks - 1).tolist())
        shifts, bit = [0], self.blocks // 2
        while bit:
            halves = ((shift + bit, shift) if next(drawn) else (shift, shift + bit) for shift in shifts)
            shifts, bit = list(chain.from_iterable(halves)), bit // 2
        return np.array(shifts)


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
