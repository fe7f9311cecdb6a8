"""Rows to learn from that are not held in memory: shuffled once on disk, then read in another order every epoch.

The first shuffle is needed: files are often sorted by user. Batches of neighbouring rows would then have each user many
times, and steps that are small enough for a random batch no longer converge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys.arrays import Array, Codes, Floats
from recsys.data import parquet_store
from recsys.data.buckets import Buckets, bits_for, read_array, scratch_file, write_array
from recsys.data.interactions import Interactions
from recsys.data.parquet_store import files_of

Triples = tuple[Codes, Codes, Floats]
"""Users, items and ratings of some rows, each of shape (n,)."""


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

    def read(self, group: int) -> Triples:
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

    def read(self, block: int) -> Triples:
        """The rows of one block."""
        records = read_array(self._file, self._dtype, sum(self.sizes[:block]), self.sizes[block])
        return records["user"], records["item"], records["rating"]


class BlockLoader:
    """A block shuffle: in every epoch the blocks in another order, and the rows of each in another order."""

    def __init__(self, stream: RowStream, n_users: int, n_items: int, batch_size: int, seed: int) -> None:
        self._rows, self._batch_size, self._seed = ShuffledRows(stream, stream.scratch, seed), batch_size, seed
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

    def epoch(self, number: int) -> Iterator[Triples]:
        """All rows once, `batch_size` at a time, in an order that follows from seed and number."""
        rng = np.random.default_rng([self._seed, number])
        left: list[Triples] = []  # of the blocks before: less than a batch
        for block in rng.permutation(len(self._rows.sizes)):
            order = rng.permutation(self._rows.sizes[block])
            users, items, ratings = _joined([*left, _taken(self._rows.read(block), order)])
            whole = len(users) - len(users) % self._batch_size
            for start in range(0, whole, self._batch_size):
                yield _taken((users, items, ratings), slice(start, start + self._batch_size))
            left = [_taken((users, items, ratings), slice(whole, None))]
        if len(left[0][0]):
            yield left[0]


def _taken(rows: Triples, some: Array | slice) -> Triples:
    users, items, ratings = rows
    return users[some], items[some], ratings[some]


def _joined(pieces: list[Triples]) -> Triples:
    users, items, ratings = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return users, items, ratings
