"""Ratings that do not fit in memory: cleaned run by run, kept on disk, given out again some at a time.

The columns lie one after the other in files, in the order of the input. What stays in memory are the ids, one bit
a row, and a run of rows. Repeated pairs are found bucket by bucket, each of which holds all rows of its pairs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Array, Codes, Ids
from recsys.data.buckets import Buckets, bits_for, write_array
from recsys.data.cleaning import Bar, Block, Cleaner
from recsys.data.ratings import check_left, check_rows, notes_of, older_repeats
from recsys.data.readers.source import Columns, Source, check_names
from recsys.data.splits import mix

BYTES_A_ROW = 48
"""On disk: the columns (24) and, until repeats are found, a record of the pair (24)."""

_KINDS: dict[str, np.dtype[Any]] = {
    "users": np.dtype("i4"),
    "items": np.dtype("i4"),
    "values": np.dtype("f8"),
    "timestamps": np.dtype("f8"),
}
_BLOCK = 1 << 18  # rows given out at a time; a multiple of 8
_BUCKET = 1 << 21  # records in a bucket


@dataclass(frozen=True, eq=False)
class SpilledRatings:
    """The cleaned ratings of one input, as `Ratings`, but on disk."""

    folder: Path
    user_ids: Ids
    item_ids: Ids
    rows_read: int
    dropped: dict[str, int]
    notes: tuple[str, ...]
    timed: bool
    size: int
    repeats: NDArray[np.uint8]  # a bit for every row on disk: whether it is left out
    rows: int  # on disk
    user_codes: Codes  # from the codes on disk to positions in user_ids
    item_codes: Codes

    def __len__(self) -> int:
        return self.size

    def blocks(self) -> Iterator[Block]:
        """The ratings, some at a time."""
        for block in _read(self.folder, self.rows, self.repeats, self.timed):
            yield Block(self.user_codes[block.users], self.item_codes[block.items], block.values, block.timestamps)


def spill_ratings(
    path: Path, sources: Sequence[Source], columns: Columns, bar: Bar, folder: Path, rows: int
) -> SpilledRatings:
    """Read ratings as `read_ratings` does, but keep them in `folder`, in bounded memory.

    Args:
        path: names the input in messages.
        folder: an empty folder; whoever made it removes it.
        rows: about how many rows there are.

    Raises:
        InputError: the input cannot be used.
    """
    check_names(columns)
    cleaner = Cleaner(columns, bar)
    timed = "timestamp" in sources[0].found
    record = [("pair", "u8"), ("row", "i8"), *([("moment", "f8")] if timed else [])]
    with Buckets(folder / "pairs", record, bits_for(rows, _BUCKET)) as pairs:
        written = _write(cleaner, sources, folder, pairs)
        check_rows(path, sources, cleaner.rows_read)
        left_out = np.zeros((written + 7) // 8, np.uint8)
        count = sum(_mark(records, left_out, cleaner.timed) for records in pairs.drain())
    (folder / "pairs").rmdir()
    dropped = cleaner.dropped() | {"repeated_pair": count}
    check_left(path, cleaner, dropped)
    used_users, used_items = np.zeros(len(cleaner.users), bool), np.zeros(len(cleaner.items), bool)
    for block in _read(folder, written, left_out, False):
        used_users[block.users] = used_items[block.items] = True
    user_codes, user_ids = cleaner.users.sorted(used_users)
    item_codes, item_ids = cleaner.items.sorted(used_items)
    return SpilledRatings(
        folder=folder,
        user_ids=user_ids,
        item_ids=item_ids,
        rows_read=cleaner.rows_read,
        dropped=dropped,
        notes=notes_of(sources) + cleaner.notes(),
        timed=cleaner.timed,
        size=cleaner.kept - count,
        repeats=left_out,
        rows=written,
        user_codes=user_codes,
        item_codes=item_codes,
    )


def _write(cleaner: Cleaner, sources: Sequence[Source], folder: Path, pairs: Buckets) -> int:
    """Clean all rows onto the disk; returns how many are there."""
    written = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb", buffering=0)) for name in _KINDS}
        for source in sources:
            for raw in source.stream():
                block = cleaner.clean(raw)
                pair = mix(_pairs(block))
                columns: dict[str, Array] = {"pair": pair, "row": np.arange(written, written + len(block))}
                if block.timestamps is not None:
                    columns["moment"] = block.timestamps
                pairs.add(pair, **columns)
                for name, file in files.items():
                    if (column := getattr(block, name)) is not None:
                        write_array(file, column)
                written += len(block)
                os.utime(folder.parent)  # it is not left behind by a killed process
    return written


def _pairs(block: Block) -> NDArray[np.uint64]:
    return (block.users.astype(np.uint64) << np.uint64(32)) | block.items.astype(np.uint64)


def _mark(records: Array, left_out: NDArray[np.uint8], timed: bool) -> int:
    """Set the bits of rows without the timestamp that others have, and of older repeats; returns how many repeat."""
    pairs, rows, stamps = records["pair"], records["row"], None
    if timed:
        stamps = records["moment"]
        if (missing := np.isnan(stamps)).any():
            _set(left_out, rows[missing])
            pairs, rows, stamps = (column[~missing] for column in (pairs, rows, stamps))
    repeats = older_repeats(np.ascontiguousarray(pairs), rows, stamps)
    _set(left_out, repeats)
    return len(repeats)


def _set(bits: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
    np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))


def _read(folder: Path, rows: int, left_out: NDArray[np.uint8], timed: bool) -> Iterator[Block]:
    """The rows on disk that are not left out, in the codes they were written with."""
    names = [name for name in _KINDS if timed or name != "timestamps"]
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("rb", buffering=0)) for name in names}
        for start in range(0, rows, _BLOCK):
            n = min(_BLOCK, rows - start)
            columns = {name: np.fromfile(file, _KINDS[name], n) for name, file in files.items()}
            block = Block(columns["users"], columns["items"], columns["values"], columns.get("timestamps"))
            out = np.unpackbits(left_out[start // 8 : (start + n + 7) // 8], count=n, bitorder="little")
            if not out.all():
                yield block.select(out == 0) if out.any() else block
