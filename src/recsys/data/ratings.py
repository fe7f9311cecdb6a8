"""Ratings: read from files some at a time, checked, cleaned, and kept in memory or on disk.

However many rows there are, they go the same way. The cleaned columns lie one after the other in scratch files, in the
order of the input; where there is memory enough, these files are buffers in memory. What always stays in memory are the
ids, one bit a row, and a block of rows. Repeated pairs are found bucket by bucket, each of which holds all rows of its
pairs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Array, Codes, Floats
from recsys.data.buckets import Buckets, bits_for, read_array, scratch_file, write_array
from recsys.data.cleaning import Bar, Block, Cleaner
from recsys.data.readers.files import estimate_rows, find_files, open_files
from recsys.data.readers.source import ColumnNames, Source, TextFormat, check_names
from recsys.data.splits import mix
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError

BYTES_A_ROW = 48
"""In scratch files: the columns (24) and, until repeats are found, a record of the pair (24)."""

_TYPES: dict[str, np.dtype[Any]] = {
    "users": np.dtype("i4"),
    "items": np.dtype("i4"),
    "values": np.dtype("f8"),
    "timestamps": np.dtype("f8"),
}
_BLOCK = 1 << 18  # rows given out at a time, so that they stay in the processor's cache; a multiple of 8
_BUCKET = 1 << 21  # records in a bucket


@dataclass(frozen=True, eq=False)
class Ratings:
    """The cleaned ratings of one input, in its order: each (user, item) pair once. To be closed after use."""

    users: Vocabulary  # in codepoint order, each id used by a row
    items: Vocabulary  # likewise
    timed: bool  # whether every rating has a timestamp; else none has
    rated: bool  # whether the input has a column of ratings; else all are cleaning.TAKEN
    rows_read: int
    dropped: dict[str, int]  # reason -> rows: "missing_value", "below_min_rating", "repeated_pair"
    notes: tuple[str, ...]  # one sentence each, for the user
    _rows: "_Rows"
    _size: int
    _user_codes: Codes  # from the codes in `_rows` to those of `users`
    _item_codes: Codes

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def blocks(self) -> Iterator[Block]:
        """The ratings in the input's order, some at a time; may be asked for again."""
        for block in self._rows.blocks(timed=self.timed):
            yield Block(self._user_codes[block.users], self._item_codes[block.items], block.values, block.timestamps)

    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        ends = [(float(block.values.min()), float(block.values.max())) for block in self.blocks()]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def load(self) -> Block:
        """All ratings at once, in memory; timestamps are seconds since 1970 for dates, else the file's own numbers."""
        blocks = list(self.blocks())
        return Block(
            np.concatenate([block.users for block in blocks]),
            np.concatenate([block.items for block in blocks]),
            np.concatenate([block.values for block in blocks]),
            np.concatenate([block.timestamps for block in blocks]) if self.timed else None,
        )


def read_ratings(
    path: Path,
    columns: ColumnNames = ColumnNames(),  # noqa: B008  # frozen, so sharing it is safe
    *,
    separator: str = "auto",
    encoding: str = "auto",
    decimal: str = "auto",
    min_rating: Bar = "positive",
    scratch: Path | None = None,
    summed: bool = False,
) -> Ratings:
    """Read ratings (delimited text, gzipped or not, or Parquet) and clean them.

    Rows are dropped, in this order: those with a missing value, those rated below `min_rating`, and of
    a repeated (user, item) pair all but the newest (by timestamp; without one, or among equals, the
    last in the input). Ids are kept as written but for blanks around them. Dates without a zone are UTC.

    Args:
        path: a file, a folder of files, or a pattern such as "ratings-*.csv".
        columns: the names of the columns. With the default ones, a file without a header is read by
            position.
        separator: between the fields of a text file: the characters, "tab", "comma", or "auto".
        encoding: of a text file: Python's name of it; "auto": UTF-8, or UTF-16 where it begins with the mark of that.
        decimal: of ratings in a text file: "point", "comma", or "auto", where the first lines say it.
        min_rating: "positive" keeps ratings above zero, a number keeps those not below it, None all.
        scratch: a folder on a disk with BYTES_A_ROW bytes of room a row; None: the rows are held in memory.
        summed: the newest of a repeated pair gets the sum of all its ratings. Sums are held in memory.

    Raises:
        InputError: the input cannot be used.
    """
    check_names(columns)
    files = find_files(path)
    sources = open_files(files, columns, TextFormat(separator, encoding, decimal))
    cleaner = Cleaner(columns, min_rating)
    timed = "timestamp" in sources[0].found
    record = [("pair", "u8"), ("row", "i8"), *([("moment", "f8")] if timed else [])]
    record += [("value", "f8")] if summed else []
    with ExitStack() as stack:
        rows = stack.enter_context(_Rows(scratch, timed))
        with Buckets(scratch, record, bits_for(estimate_rows(files), _BUCKET)) as pairs:
            _clean(cleaner, sources, rows, pairs, scratch)
            _check_rows(path, sources, cleaner.rows_read)
            rows.left_out = np.zeros((rows.count + 7) // 8, np.uint8)
            repeated = 0
            for records in pairs.drain():
                repeated += _leave_out(records, rows.left_out, cleaner.timed)
                if summed:
                    dated = ~np.isnan(records["moment"]) if cleaner.timed else slice(None)
                    rows.sums.append(_sums(records[dated], rows.left_out))
        dropped = cleaner.dropped() | {"repeated_pair": repeated}
        _check_left(path, cleaner, dropped)
        used_users, used_items = np.zeros(len(cleaner.users), bool), np.zeros(len(cleaner.items), bool)
        for block in rows.blocks(timed=False):
            used_users[block.users] = used_items[block.items] = True
        users, user_codes = cleaner.users.finish(used_users)
        items, item_codes = cleaner.items.finish(used_items)
        stack.pop_all()  # the ratings close them
    return Ratings(
        users=users,
        items=items,
        timed=cleaner.timed,
        rated="rating" in sources[0].found,
        rows_read=cleaner.rows_read,
        dropped=dropped,
        notes=_notes(sources) + cleaner.notes(),
        _rows=rows,
        _size=cleaner.kept - repeated,
        _user_codes=user_codes,
        _item_codes=item_codes,
    )


class _Rows:
    """Cleaned rows, each column in a scratch file, in the codes they were read with."""

    def __init__(self, scratch: Path | None, timed: bool) -> None:
        self.count = 0
        self.left_out = np.zeros(0, np.uint8)  # a bit for every row: whether it is left out
        self.sums: list[tuple[NDArray[np.int64], Floats]] = []  # of rows: what counts in place of their values
        names = [name for name in _TYPES if timed or name != "timestamps"]
        self._files = {name: scratch_file(scratch) for name in names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; their content is gone."""
        for file in self._files.values():
            file.close()

    def add(self, block: Block) -> None:
        for name, file in self._files.items():
            write_array(file, getattr(block, name))
        self.count += len(block)

    def blocks(self, *, timed: bool) -> Iterator[Block]:
        """The rows that are not left out, some at a time, with their timestamps if `timed`."""
        files = {name: file for name, file in self._files.items() if timed or name != "timestamps"}
        changed, sums = self._sums()
        for start in range(0, self.count, _BLOCK):
            n = min(_BLOCK, self.count - start)
            columns = {name: read_array(file, _TYPES[name], start, n) for name, file in files.items()}
            first, last = np.searchsorted(changed, [start, start + n])
            columns["values"][changed[first:last] - start] = sums[first:last]
            block = Block(columns["users"], columns["items"], columns["values"], columns.get("timestamps"))
            out = np.unpackbits(self.left_out[start // 8 : (start + n + 7) // 8], count=n, bitorder="little")
            if not out.all():
                yield block.select(out == 0) if out.any() else block

    def _sums(self) -> tuple[NDArray[np.int64], Floats]:
        """The rows whose value is a sum, ascending, and the sums."""
        if len(self.sums) != 1:
            rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self.sums)])
            sums = np.concatenate([np.empty(0), *(sums for _, sums in self.sums)])
            order = np.argsort(rows)
            self.sums = [(rows[order], sums[order])]
        return self.sums[0]


def _clean(cleaner: Cleaner, sources: Sequence[Source], rows: _Rows, pairs: Buckets, scratch: Path | None) -> None:
    """Clean all rows, and sort their pairs into buckets."""
    for source in sources:
        for raw in source.blocks():
            block = cleaner.clean(raw)
            pair = mix((block.users.astype(np.uint64) << np.uint64(32)) | block.items.astype(np.uint64))
            columns: dict[str, Array] = {"pair": pair, "row": np.arange(rows.count, rows.count + len(block))}
            if block.timestamps is not None:
                columns["moment"] = block.timestamps
            if pairs.has("value"):
                columns["value"] = block.values
            pairs.add(pair, **columns)
            rows.add(block)
            if scratch:
                os.utime(scratch)  # it is not left behind by a killed process


def _leave_out(records: Array, left_out: NDArray[np.uint8], timed: bool) -> int:
    """Set the bits of rows without the timestamp that others have, and of older repeats; returns how many repeat."""
    pairs, rows, stamps = records["pair"], records["row"], None
    if timed:
        stamps = records["moment"]
        if (missing := np.isnan(stamps)).any():
            _set(left_out, rows[missing])
            pairs, rows, stamps = (column[~missing] for column in (pairs, rows, stamps))
    repeats = _older_repeats(np.ascontiguousarray(pairs), rows, stamps)
    _set(left_out, repeats)
    return len(repeats)


def _sums(records: Array, left_out: NDArray[np.uint8]) -> tuple[NDArray[np.int64], Floats]:
    """The rows, ascending, that stay of pairs that are there several times, and what all rows of each add up to."""
    _, pair, times = np.unique(records["pair"], return_inverse=True, return_counts=True)
    rows = records["row"]
    stays = ((left_out[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1) == 0
    chosen = np.flatnonzero(stays & (times[pair] > 1))
    chosen = chosen[np.argsort(rows[chosen])]
    sums = np.asarray(np.bincount(pair, records["value"])[pair[chosen]], np.float64)
    return np.asarray(rows[chosen], np.int64), sums


def _set(bits: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
    np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))


def _older_repeats(pairs: NDArray[np.integer], rows: NDArray[np.int64], stamps: Floats | None) -> NDArray[np.int64]:
    """Of `rows`, those whose pair stands in a newer one too.

    Args:
        pairs: (n,) a number for each row's (user, item) pair.
        rows: (n,) ascending, the numbers of the rows.
        stamps: (n,) their moments, where there are any.
    """
    # Sorting the bare numbers is several times faster than an argsort. It tells which pairs repeat; a
    # table over their low bits then finds their rows, and some others that the last line lets go.
    ascending = np.sort(pairs)
    low_bits = (1 << min(len(pairs).bit_length() + 8, 24)) - 1
    marked = np.zeros(low_bits + 1, dtype=bool)
    marked[(ascending[1:][ascending[1:] == ascending[:-1]] & low_bits).astype(np.intp, copy=False)] = True
    candidates = marked[(pairs & low_bits).astype(np.intp, copy=False)]
    pairs, rows = pairs[candidates], rows[candidates]
    # Both sorts are stable: rows of the same time stay in the input's order.
    order = np.argsort(pairs, kind="stable") if stamps is None else np.lexsort((stamps[candidates], pairs))
    pairs, rows = pairs[order], rows[order]
    older: NDArray[np.int64] = rows[:-1][pairs[:-1] == pairs[1:]]
    return older


def _check_rows(path: Path, sources: Sequence[Source], rows: int) -> None:
    """Refuse an input without rows."""
    if rows == 0:
        if len(sources) > 1:
            raise InputError(f"{path}: {len(sources)} files have columns but no rows; give files with ratings")
        raise InputError(f"{sources[0].path}: the file has a header but no rows; give a file with ratings")


def _check_left(path: Path, cleaner: Cleaner, dropped: dict[str, int]) -> None:
    """Refuse an input of which cleaning leaves nothing."""
    if cleaner.kept == 0:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise InputError(
            f"{path}: none of the {cleaner.rows_read} rows is left after cleaning ({counts}); check the columns, "
            "or lower the bar with -P min_rating=<lowest rating>"
        )


def _notes(sources: Sequence[Source]) -> tuple[str, ...]:
    """What the user should know of the files: of several, what is said of the first holds for all."""
    if len(sources) == 1:
        return sources[0].notes
    return tuple(f"{note} (and {len(sources) - 1} more files)" for note in sources[0].notes)
