"""Rows to learn from that are not held in memory: shuffled once on disk, then read in another order every epoch.

The first shuffle is needed: files are often sorted by user. Batches of neighbouring rows would then have each user many
times, and steps that are small enough for a random batch no longer converge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq

from recsys.arrays import Array, Codes, Floats
from recsys.data import parquet_store
from recsys.data.buckets import Buckets, bits_for, read_array, scratch_file, write_array
from recsys.data.interactions import Interactions
from recsys.data.parquet_store import files_of

LANES = 8
"""Blocks read side by side. Fixed, since it decides the batches, whatever the number of processes."""

Batch = tuple[Codes, Codes, Floats]
"""Users, items and ratings, each of shape (n,)."""


class Feed(Protocol):
    """Batches of rows to learn from, and what has to be known of all rows beforehand."""

    n: int  # rows
    mean: float  # of the ratings
    scale: float  # their standard deviation
    counts: tuple[Array, Array]  # how often each user and each item is rated

    def epoch(self, number: int) -> Iterator[Batch]:
        """All rows once, in an order that follows from the number."""


@dataclass(frozen=True)
class _Group:
    path: Path
    number: int
    rows: int


class RowStream:
    """The rows of some parts of a dataset, with codes of their own."""

    def __init__(self, folders: Sequence[Path], user_codes: Codes, item_codes: Codes, scratch: Path) -> None:
        """What is known of the rows beforehand.

        Args:
            folders: of the parts.
            user_codes: for each of the dataset's codes the one used here.
            item_codes: likewise.
            scratch: a folder on a disk with 32 bytes of room a row.
        """
        self.user_codes, self.item_codes, self.scratch = user_codes, item_codes, scratch
        self.groups: list[_Group] = []
        for folder in folders:
            for path in files_of(folder):
                with pq.ParquetFile(path) as file:
                    sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
                self.groups += [_Group(path, k, size) for k, size in enumerate(sizes)]

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    def read(self, group: int) -> Batch:
        """The rows of one row group."""
        chosen = self.groups[group]
        with pq.ParquetFile(chosen.path) as file:
            table = file.read_row_group(chosen.number, ["user", "item", "rating"])
        users, items, ratings = (table[name].to_numpy() for name in ("user", "item", "rating"))
        return self.user_codes[users], self.item_codes[items], ratings

    def blocks(self) -> Iterator[Interactions]:
        """All rows in the dataset's order, a row group at a time."""
        for group in range(len(self.groups)):
            yield Interactions(*self.read(group))


class ShuffledRows:
    """The rows of a stream in random order, in a file that nobody else sees and that ends with this object.

    A row goes to a block at random, and within it to a random place.
    """

    def __init__(self, stream: RowStream, folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        fields = [("user", "i4"), ("item", "i4"), ("rating", "f8")]
        self._file = scratch_file(folder)
        self.sizes: list[int] = []
        with Buckets(folder, fields, bits_for(len(stream), parquet_store.ROW_GROUP)) as buckets:
            for block in stream.blocks():
                keys = rng.integers(0, 2**64, len(block), np.uint64)
                buckets.add(keys, user=block.users, item=block.items, rating=block.ratings)
            for records in buckets.drain():
                write_array(self._file, rng.permutation(records))
                self.sizes.append(len(records))
        self._dtype = np.dtype(fields)

    def read(self, block: int) -> Batch:
        """The rows of one block."""
        records = read_array(self._file, self._dtype, sum(self.sizes[:block]), self.sizes[block])
        return records["user"], records["item"], records["rating"]


class BlockFeed:
    """A block shuffle: blocks in random order over LANES lanes, the rows of each in random order.

    A batch takes from every lane in proportion to what that has left. So it mixes rows of LANES blocks, and rows of one
    block meet each other more often than others. Process r of w has the lanes r, r + w and so on.
    """

    def __init__(
        self,
        stream: RowStream,
        n_users: int,
        n_items: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.rows, self.batch_size, self.seed = ShuffledRows(stream, stream.scratch, seed), batch_size, seed
        self.lanes = range(rank, LANES, processes)
        self.n = len(stream)
        counts = np.zeros(n_users, np.int64), np.zeros(n_items, np.int64)
        total = squares = 0.0
        for block in stream.blocks():
            counts[0][:] += np.bincount(block.users, minlength=n_users)
            counts[1][:] += np.bincount(block.items, minlength=n_items)
            total += float(block.ratings.sum())
            squares += float((block.ratings**2).sum())
        self.counts = counts
        self.mean = total / self.n
        self.scale = float(np.sqrt(max(0.0, squares / self.n - self.mean**2))) or 1.0

    def epoch(self, number: int) -> Iterator[Batch]:
        """All rows of this process once; the same set of batches for every number of processes."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.rows.sizes))
        lanes = [_Lane(self.rows, order[lane::LANES], [self.seed, number]) for lane in range(LANES)]
        while left := sum(lane.left for lane in lanes):
            shares = _shares(min(self.batch_size, left), [lane.left for lane in lanes])
            taken = []
            for number_of_lane, (lane, share) in enumerate(zip(lanes, shares, strict=True)):
                lane.left -= share
                if number_of_lane in self.lanes:
                    taken += lane.take(share)
            yield _joined(taken)


class _Lane:
    """Blocks read one after the other, of each the rows in random order."""

    def __init__(self, rows: ShuffledRows, blocks: Array, seed: list[int]) -> None:
        self.left = sum(rows.sizes[block] for block in blocks)  # counted down by who shares out
        self._rows, self._blocks, self._seed = rows, list(blocks), seed
        self._held: Batch = _joined([])
        self._at = 0

    def take(self, n: int) -> list[Batch]:
        """The next n rows, in pieces."""
        taken = []
        while n:
            if self._at == len(self._held[0]):
                block = int(self._blocks.pop(0))
                columns = self._rows.read(block)
                order = np.random.default_rng([*self._seed, block]).permutation(len(columns[0]))
                self._held = columns[0][order], columns[1][order], columns[2][order]
                self._at = 0
            piece = slice(self._at, min(self._at + n, len(self._held[0])))
            taken.append((self._held[0][piece], self._held[1][piece], self._held[2][piece]))
            n -= piece.stop - piece.start
            self._at = piece.stop
        return taken


def _shares(n: int, left: list[int]) -> list[int]:
    """Rows shared out in proportion to what each has left, which is n at least in all."""
    until, whole, shares = 0, sum(left), []
    for own in left:
        shares.append(n * (until + own) // whole - n * until // whole)
        until += own
    return shares


def _joined(pieces: list[Batch]) -> Batch:
    if not pieces:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
    users, items, ratings = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return users, items, ratings
