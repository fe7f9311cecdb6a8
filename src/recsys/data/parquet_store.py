"""The parts of a dataset: tables of ratings, each a folder of Parquet files that need not be loaded at once."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array
from recsys.data.interactions import Interactions, join

PARTS = ("train", "validation", "test")
SIDES = {"user": "unique_items", "item": "unique_users"}
ROW_GROUP = 1 << 20  # rows written, and read again, at once
FILE_ROWS = 1 << 23  # rows in a file, a multiple of ROW_GROUP

_MOST_WAITING = 2  # row groups to be written


def feature_names(side: str) -> tuple[str, ...]:
    """The columns of a side's table beside its ids."""
    return "average_rating", "rating_std", "rating_count", SIDES[side]


class PartWriter:
    """Writes one part. The bytes follow from the rows alone, however they come."""

    def __init__(self, folder: Path, pool: Executor) -> None:
        self.rows = 0
        self._folder, self._pool = folder, pool
        self._held: list[Interactions] = []
        self._writer: pq.ParquetWriter | None = None
        self._groups = 0
        self._waiting: deque[Future[None]] = deque()
        folder.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._waiting:
            self._waiting.popleft().exception()
        if self._writer:
            self._writer.close()

    def add(self, rows: Interactions) -> None:
        """Take further rows."""
        if len(rows):
            self._held.append(rows)
        self.rows += len(rows)
        while (held := sum(map(len, self._held))) >= ROW_GROUP:
            everything = join(self._held)
            self._send(everything[:ROW_GROUP])
            self._held = [everything[ROW_GROUP:]] if held > ROW_GROUP else []

    def finish(self) -> None:
        """Write what is left."""
        if self._held:
            self._send(join(self._held))
            self._held = []
        while self._waiting:
            self._waiting.popleft().result()

    def _send(self, rows: Interactions) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._write, rows))

    def _write(self, rows: Interactions) -> None:
        columns: dict[str, Array] = {"user": rows.users, "item": rows.items, "rating": rows.ratings}
        if rows.timestamps is not None:
            columns["timestamp"] = rows.timestamps
        table = pa.table(columns)
        number, within = divmod(self._groups * ROW_GROUP, FILE_ROWS)
        if not within:
            if self._writer:
                self._writer.close()
            path = self._folder / f"part-{number:05d}.parquet"
            self._writer = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=["rating"])
        assert self._writer
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._groups += 1


def read_part(folder: Path) -> Interactions:
    """All rows of a part."""
    tables = [pq.read_table(path) for path in files_of(folder)]
    return _interactions(pa.concat_tables(tables))


def read_blocks(folder: Path) -> Iterator[Interactions]:
    """The rows of a part, a row group at a time."""
    for path in files_of(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield _interactions(file.read_row_group(group))


def files_of(folder: Path) -> list[Path]:
    """The files of a part, in the order of its rows."""
    return sorted(folder.glob("part-*.parquet"))


def _interactions(table: pa.Table) -> Interactions:
    times = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
    return Interactions(table["user"].to_numpy(), table["item"].to_numpy(), table["rating"].to_numpy(), times)
