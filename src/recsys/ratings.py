"""Ratings: read from a file, checked and cleaned."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys import delimited, parquet
from recsys.columns import Columns, RawColumns, check_names, shorten
from recsys.errors import InputError

__all__ = ["Columns", "Ratings", "read_ratings"]

_NOTED_SHARE = 0.01  # of the rows dropped below zero, from which on the user is told


@dataclass(frozen=True, eq=False)
class Ratings:
    """The cleaned ratings of one file, in the file's order: each (user, item) pair once."""

    users: NDArray[np.int32]  # (n,) index into user_ids
    items: NDArray[np.int32]  # (n,) index into item_ids
    values: NDArray[np.float64]  # (n,) the ratings
    timestamps: NDArray[np.float64] | None  # (n,) seconds since 1970 for dates, else the file's own numbers
    user_ids: NDArray[np.object_]  # text, in codepoint order, each used by a row
    item_ids: NDArray[np.object_]  # likewise
    rows_read: int
    dropped: dict[str, int]  # reason -> rows: "missing_value", "below_min_rating", "repeated_pair"
    notes: tuple[str, ...]  # one sentence each, for the user

    def __len__(self) -> int:
        return len(self.users)


def read_ratings(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  # frozen, so sharing it is safe
    *,
    separator: str = "auto",
    min_rating: float | Literal["positive"] | None = "positive",
) -> Ratings:
    """Read a ratings file (delimited text, gzipped or not, or Parquet) and clean it.

    Rows are dropped, in this order: those with a missing value, those rated below `min_rating`, and of
    a repeated (user, item) pair all but the newest (by timestamp; without one, or among equals, the
    last in the file). Ids are kept as written but for blanks around them. Dates without a zone are UTC.

    Args:
        path: the file.
        columns: the names of its columns. With the default ones, a file without a header is read by
            position.
        separator: between the fields of a text file: the characters, "tab", "comma", or "auto".
        min_rating: "positive" keeps ratings above zero, a number keeps those not below it, None all.

    Raises:
        InputError: the file cannot be used.
    """
    check_names(columns)
    check_file(path)
    raw = _read_columns(path, columns, separator)
    rows_read = len(raw.users)
    users, user_ids = _indexed(raw.users)
    items, item_ids = _indexed(raw.items)
    values = _numbers(raw.ratings, columns.rating, raw.place, dates=False)
    stamps = None
    if raw.timestamps is not None:
        stamps = _numbers(raw.timestamps, columns.timestamp, raw.place, dates=True)
        if np.isnan(stamps).all():
            stamps = None
    notes, place = raw.notes, raw.place
    del raw, place  # frees the file's columns

    known = (users >= 0) & (items >= 0) & ~np.isnan(values)
    if stamps is not None:
        known &= ~np.isnan(stamps)
    kept = known
    if min_rating is not None:
        kept = known & ((values > 0) if min_rating == "positive" else (values >= min_rating))
        notes += _low_ratings_note(values[known & ~kept], rows_read, min_rating)
    dropped = {
        "missing_value": rows_read - int(known.sum()),
        "below_min_rating": int(known.sum()) - int(kept.sum()),
    }
    repeats = _older_repeats(np.flatnonzero(kept), users, items, stamps)
    kept[repeats] = False
    dropped["repeated_pair"] = len(repeats)
    if not kept.any():
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise InputError(
            f"{path}: none of the {rows_read} rows is left after cleaning ({counts}); check the columns, "
            "or lower the bar with -P min_rating=<lowest rating>"
        )
    users, user_ids = _compacted(users[kept], user_ids)
    items, item_ids = _compacted(items[kept], item_ids)
    return Ratings(
        users=users,
        items=items,
        values=values[kept],
        timestamps=None if stamps is None else stamps[kept],
        user_ids=user_ids,
        item_ids=item_ids,
        rows_read=rows_read,
        dropped=dropped,
        notes=notes,
    )


def check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: expected a file, got a directory; name the ratings file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file in {path.absolute().parent}; check the name, or pass the full path")


def _read_columns(path: Path, columns: Columns, separator: str) -> RawColumns:
    try:
        with path.open("rb") as file:
            magic = file.read(len(parquet.MAGIC))
        if not magic:
            raise InputError(f"{path}: the file is empty; give a file with ratings")
        if magic == parquet.MAGIC or path.suffix.lower() in parquet.SUFFIXES:
            return parquet.read_columns(path, columns)
        return delimited.read_columns(path, columns, separator)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def _indexed(column: pa.DictionaryArray) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Each row's index into the sorted ids, -1 where the id is missing, and those ids."""
    names = [text.strip() for text in _texts(column)]
    ids = sorted(set(names) - {""})
    index = {name: position for position, name in enumerate(ids)}
    positions = np.array([index.get(name, -1) for name in names], dtype=np.int32)
    return positions[_codes(column)], np.array(ids, dtype=object)


def _texts(column: pa.DictionaryArray) -> Iterator[str]:
    """The texts of the dictionary, and at its end, where the code -1 points, "" for rows that are null."""
    for start in range(0, len(column.dictionary), 1 << 16):
        yield from (text or "" for text in column.dictionary.slice(start, 1 << 16).to_pylist())
    yield ""


def _codes(column: pa.DictionaryArray) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = column.indices.fill_null(-1).to_numpy()
    return codes


def _numbers(column: pa.Array, name: str, place: Callable[[int], str], *, dates: bool) -> NDArray[np.float64]:
    """The column as float64, NaN where missing."""
    values: NDArray[np.float64]
    if not pa.types.is_dictionary(column.type):
        values = column.to_numpy(zero_copy_only=False)
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise _refusal(place(row), name, str(values[row]), dates)
        return values

    parsed = np.fromiter(
        (_parsed(text, dates) for text in _texts(column)), dtype=[("value", np.float64), ("dated", np.bool_)]
    )
    codes = _codes(column)
    values = parsed["value"][codes]
    bad = np.isinf(values)
    if not bad.any() and parsed["dated"].any():
        # Numbers and dates do not compare: together they would put the rows in a senseless order.
        dated, known = parsed["dated"][codes], ~np.isnan(values)
        bad = known & (dated != dated[known.argmax()])
    if bad.any():
        row = int(bad.argmax())
        raise _refusal(place(row), name, column.slice(row, 1).to_pylist()[0].strip(), dates)
    return values


def _refusal(place: str, name: str, text: str, dates: bool) -> InputError:
    value, _ = _parsed(text, dates)
    point = text.replace(",", ".", 1)
    expected, remedy = "a number", "correct or remove the row"
    if math.isfinite(value):
        expected = "a number in every row or a date in every row"
    elif dates:
        expected = "a number or a date such as 2024-05-31T12:00:00"
    elif point != text and math.isfinite(_parsed(point, False)[0]):
        remedy = f"write {point}, with a decimal point"
    return InputError(f"{place}: column {name!r}: expected {expected}, got {shorten(text)}; {remedy}")


def _parsed(text: str, dates: bool) -> tuple[float, bool]:
    """The number (NaN where missing, infinite where unusable), and whether it was written as a date."""
    text = text.strip()
    if text in delimited.MISSING_NUMBERS:
        return math.nan, False
    # float() takes more than a file should hold, such as 1_000 and digits of other scripts.
    if text.isascii() and "_" not in text:
        with contextlib.suppress(ValueError):
            return float(text), False
    if dates:
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
    return math.inf, False


def _low_ratings_note(low: NDArray[np.float64], rows: int, min_rating: float | str) -> tuple[str, ...]:
    if min_rating != "positive" or len(low) <= _NOTED_SHARE * rows or low.min() >= 0:
        return ()
    return (
        f"{len(low)} of {rows} rows are rated zero or below and were dropped; "
        f"for a scale that goes below zero pass -P min_rating={low.min():g}",
    )


def _older_repeats(
    rows: NDArray[np.intp],
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    stamps: NDArray[np.float64] | None,
) -> NDArray[np.intp]:
    """Of `rows`, those whose (user, item) pair stands in a newer one too."""
    if not len(rows):
        return rows
    pairs = users[rows].astype(np.int64)
    pairs *= int(items.max()) + 1
    pairs += items[rows]
    # Sorting the bare numbers is several times faster than an argsort. It tells which pairs repeat; a
    # table over their low bits then finds their rows, and some others that the last line lets go.
    ascending = np.sort(pairs)
    low_bits = (1 << 24) - 1
    marked = np.zeros(low_bits + 1, dtype=bool)
    marked[ascending[1:][ascending[1:] == ascending[:-1]] & low_bits] = True
    candidates = marked[pairs & low_bits]
    pairs, rows = pairs[candidates], rows[candidates]
    # Both sorts are stable: rows of the same time stay in the file's order.
    order = np.argsort(pairs, kind="stable") if stamps is None else np.lexsort((stamps[rows], pairs))
    pairs, rows = pairs[order], rows[order]
    older: NDArray[np.intp] = rows[:-1][pairs[:-1] == pairs[1:]]
    return older


def _compacted(codes: NDArray[np.int32], ids: NDArray[np.object_]) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """The codes and ids without the ids that no row uses any more."""
    used = np.bincount(codes, minlength=len(ids)) > 0
    return (np.cumsum(used, dtype=np.int32) - 1)[codes], ids[used]
