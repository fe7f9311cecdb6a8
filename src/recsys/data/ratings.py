"""Ratings: read from files, checked and cleaned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Codes, Floats, Ids
from recsys.data.cleaning import Bar, Block, Cleaner
from recsys.data.readers.files import find_files, open_files
from recsys.data.readers.source import Columns, Source, check_names
from recsys.errors import InputError

__all__ = ["Columns", "Ratings", "read_ratings"]

_BLOCK = 1 << 18  # rows handed on at a time, so that what is made of them stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Ratings:
    """The cleaned ratings of one input, in its order: each (user, item) pair once."""

    users: Codes  # (n,) index into user_ids
    items: Codes  # (n,) index into item_ids
    values: Floats  # (n,) the ratings
    timestamps: Floats | None  # (n,) seconds since 1970 for dates, else the file's own numbers
    user_ids: Ids  # text, in codepoint order, each used by a row
    item_ids: Ids  # likewise
    rows_read: int
    dropped: dict[str, int]  # reason -> rows: "missing_value", "below_min_rating", "repeated_pair"
    notes: tuple[str, ...]  # one sentence each, for the user

    def __len__(self) -> int:
        return len(self.users)

    @property
    def timed(self) -> bool:
        """Whether every rating has a timestamp; else none has."""
        return self.timestamps is not None

    def blocks(self) -> Iterator[Block]:
        """The ratings, some at a time."""
        for start in range(0, len(self), _BLOCK):
            part = slice(start, start + _BLOCK)
            times = None if self.timestamps is None else self.timestamps[part]
            yield Block(self.users[part], self.items[part], self.values[part], times)


def read_ratings(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  # frozen, so sharing it is safe
    *,
    separator: str = "auto",
    min_rating: Bar = "positive",
) -> Ratings:
    """Read ratings (delimited text, gzipped or not, or Parquet) into memory and clean them.

    Rows are dropped, in this order: those with a missing value, those rated below `min_rating`, and of
    a repeated (user, item) pair all but the newest (by timestamp; without one, or among equals, the
    last in the input). Ids are kept as written but for blanks around them. Dates without a zone are UTC.

    Args:
        path: a file, a folder of files, or a pattern such as "ratings-*.csv".
        columns: the names of the columns. With the default ones, a file without a header is read by
            position.
        separator: between the fields of a text file: the characters, "tab", "comma", or "auto".
        min_rating: "positive" keeps ratings above zero, a number keeps those not below it, None all.

    Raises:
        InputError: the input cannot be used.
    """
    check_names(columns)
    sources = open_files(find_files(path), columns, separator)
    cleaner = Cleaner(columns, min_rating)
    block = _joined([cleaner.clean(raw) for source in sources if (raw := source.read()) is not None])
    check_rows(path, sources, cleaner.rows_read)
    if block.timestamps is not None and cleaner.timed and np.isnan(block.timestamps).any():
        block = block.select(~np.isnan(block.timestamps))
    stamps = block.timestamps if cleaner.timed else None
    repeats = older_repeats(number_pairs(block), np.arange(len(block)), stamps)
    dropped = cleaner.dropped() | {"repeated_pair": len(repeats)}
    check_left(path, cleaner, dropped)
    if len(repeats):
        kept = np.ones(len(block), bool)
        kept[repeats] = False
        block = block.select(kept)
    user_codes, user_ids = cleaner.users.sorted(np.bincount(block.users, minlength=len(cleaner.users)) > 0)
    item_codes, item_ids = cleaner.items.sorted(np.bincount(block.items, minlength=len(cleaner.items)) > 0)
    return Ratings(
        users=user_codes[block.users],
        items=item_codes[block.items],
        values=block.values,
        timestamps=block.timestamps if cleaner.timed else None,
        user_ids=user_ids,
        item_ids=item_ids,
        rows_read=cleaner.rows_read,
        dropped=dropped,
        notes=notes_of(sources) + cleaner.notes(),
    )


def number_pairs(block: Block) -> NDArray[np.int64]:
    """A number for each row's (user, item) pair: shape (n,)."""
    pairs = block.users.astype(np.int64)
    pairs *= int(block.items.max(initial=0)) + 1
    pairs += block.items
    return pairs


def check_rows(path: Path, sources: Sequence[Source], rows: int) -> None:
    """Refuse an input without rows."""
    if rows == 0:
        if len(sources) > 1:
            raise InputError(f"{path}: {len(sources)} files have columns but no rows; give files with ratings")
        raise InputError(f"{sources[0].path}: the file has a header but no rows; give a file with ratings")


def check_left(path: Path, cleaner: Cleaner, dropped: dict[str, int]) -> None:
    """Refuse an input of which cleaning leaves nothing."""
    if cleaner.kept == 0:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise InputError(
            f"{path}: none of the {cleaner.rows_read} rows is left after cleaning ({counts}); check the columns, "
            "or lower the bar with -P min_rating=<lowest rating>"
        )


def notes_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """What the user should know of the files: of several, what is said of the first holds for all."""
    if len(sources) == 1:
        return sources[0].notes
    return tuple(f"{note} (and {len(sources) - 1} more files)" for note in sources[0].notes)


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        return Block(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0), None)
    stamps = [block.timestamps for block in blocks if block.timestamps is not None]
    return Block(
        np.concatenate([block.users for block in blocks]),
        np.concatenate([block.items for block in blocks]),
        np.concatenate([block.values for block in blocks]),
        np.concatenate(stamps) if stamps else None,
    )


def older_repeats(pairs: NDArray[np.integer], rows: NDArray[np.int64], stamps: Floats | None) -> NDArray[np.int64]:
    """Of `rows`, those whose pair stands in a newer one too.

    Args:
        pairs: (n,) a number for each row's (user, item) pair.
        rows: (n,) ascending, the numbers of the rows.
        stamps: (n,) their moments, where there are any.
    """
    # Sorting the bare numbers is several times faster than an argsort. It tells which pairs repeat; a
    # table over their low bits then finds their rows, and some others that the last line lets go.
    ascending = np.sort(pairs)
    low_bits = (1 << 24) - 1
    marked = np.zeros(low_bits + 1, dtype=bool)
    marked[(ascending[1:][ascending[1:] == ascending[:-1]] & low_bits).astype(np.intp, copy=False)] = True
    candidates = marked[(pairs & low_bits).astype(np.intp, copy=False)]
    pairs, rows = pairs[candidates], rows[candidates]
    # Both sorts are stable: rows of the same time stay in the input's order.
    order = np.argsort(pairs, kind="stable") if stamps is None else np.lexsort((stamps[candidates], pairs))
    pairs, rows = pairs[order], rows[order]
    older: NDArray[np.int64] = rows[:-1][pairs[:-1] == pairs[1:]]
    return older
