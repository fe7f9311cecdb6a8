"""Cleaning: a file's columns in, numbers out, less the rows that cannot be used."""

import contextlib
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.arrays import Codes, Flags, Floats
from recsys.data.readers.delimited import MISSING_NUMBERS
from recsys.data.readers.source import ColumnNames, RawBlock, shorten
from recsys.data.vocabulary import VocabularyBuilder, codes_of, texts_of
from recsys.errors import InputError

Bar = float | Literal["positive"] | None
"""The lowest rating kept; "positive" keeps those above zero, None all."""

TAKEN = 1.0
"""What a pair is rated where the input has no ratings: the user took the item."""

_LARGEST = 1e12  # of a rating, whose squares are summed
_LATEST = 1e20  # of a timestamp: nanoseconds since 1970 are 1e18
_YEAR_1 = -62_135_596_800.0  # seconds; Python and ISO 8601 have no date before
_CLOCK = 1e8  # of a timestamp, from which on it is taken as read off a clock: 1973, in seconds
_UNITS_APART = 100.0  # times the earliest, from which on the latest is of another unit; 2030 is 19 times 1973
_NOTED_SHARE = 0.01  # of the rows dropped below zero, from which on the user is told


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of the input, in its order, as arrays of shape (n,).

    Users and items are codes. A timestamp may be NaN as long as it is not known whether any row has one.
    """

    users: Codes
    items: Codes
    values: Floats
    timestamps: Floats | None

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: NDArray[np.intp] | Flags) -> "Block":
        """These rows of it."""
        times = None if self.timestamps is None else self.timestamps[rows]
        return Block(self.users[rows], self.items[rows], self.values[rows], times)


@dataclass
class _Tally:
    known: int = 0  # rows without a missing value
    kept: int = 0  # of those, not below the bar
    lowest: float = math.inf  # of those below it

    def add(self, known: Flags, kept: Flags, values: Floats) -> None:
        self.known += int(known.sum())
        self.kept += int(kept.sum())
        low = values[known & ~kept]
        self.lowest = min(self.lowest, float(low.min())) if len(low) else self.lowest


@dataclass
class Cleaner:
    """Cleans the rows of an input, block by block, and counts what it drops.

    Rows without a timestamp go only where another row has one, which is known at the end: until then they are kept.
    """

    columns: ColumnNames
    bar: Bar
    users: VocabularyBuilder = field(default_factory=VocabularyBuilder)
    items: VocabularyBuilder = field(default_factory=VocabularyBuilder)
    rows_read: int = 0
    timed: bool = False  # whether any row has a timestamp
    _earliest: float = math.inf  # of the timestamps that were read off a clock
    _latest: float = -math.inf
    _any_time: _Tally = field(default_factory=_Tally)
    _with_time: _Tally = field(default_factory=_Tally)
    _dated: bool | None = None  # whether timestamps are dates, from the first one on

    def clean(self, raw: RawBlock) -> Block:
        """The rows kept; raises InputError where a value is no number."""
        users, items = self.users.encode(raw.users), self.items.encode(raw.items)
        if raw.ratings is None:
            values = np.full(len(users), TAKEN)
        else:
            values = self._numbers(raw, raw.ratings, str(self.columns.rating), dates=False)
        stamps = None
        if raw.timestamps is not None:
            stamps = self._numbers(raw, raw.timestamps, self.columns.timestamp, dates=True)
        self.rows_read += len(values)

        known = (users >= 0) & (items >= 0) & ~np.isnan(values)
        kept = known if self.bar is None else known & (values > 0 if self.bar == "positive" else values >= self.bar)
        self._any_time.add(known, kept, values)
        if stamps is not None:
            stamped = ~np.isnan(stamps)
            self.timed |= bool(stamped.any())
            self._earliest = min(self._earliest, float(np.min(stamps, where=stamps >= _CLOCK, initial=np.inf)))
            self._latest = max(self._latest, float(np.max(stamps, where=stamped, initial=-np.inf)))
            self._with_time.add(known & stamped, kept & stamped, values)
        block = Block(users, items, values, stamps)
        return block if kept.all() else block.select(kept)

    @property
    def kept(self) -> int:
        """How many rows are kept so far, now that it is known whether a timestamp is needed."""
        return self._tally.kept

    def dropped(self) -> dict[str, int]:
        """How many rows were dropped for which reason."""
        tally = self._tally
        return {"missing_value": self.rows_read - tally.known, "below_min_rating": tally.known - tally.kept}

    def notes(self) -> tuple[str, ...]:
        """What the user should know of the rows dropped and of the timestamps."""
        tally, told = self._tally, list[str]()
        low = tally.known - tally.kept
        if self.bar == "positive" and low > _NOTED_SHARE * self.rows_read and tally.lowest < 0:
            told.append(
                f"{low} of {self.rows_read} rows are rated zero or below and were dropped; "
                f"for a scale that goes below zero pass -P min_rating={tally.lowest:g}"
            )
        if not self._dated and self._latest > _UNITS_APART * self._earliest:
            told.append(
                f"column {self.columns.timestamp!r}: timestamps from {self._earliest:.0f} to {self._latest:.0f} look "
                "like seconds in some rows and milliseconds or less in others, which puts ratings in a wrong order: "
                "write all in one unit"
            )
        return tuple(told)

    @property
    def _tally(self) -> _Tally:
        return self._with_time if self.timed else self._any_time

    def _numbers(self, raw: RawBlock, column: pa.Array, name: str, *, dates: bool) -> Floats:
        """The column as float64, NaN where missing."""
        values: Floats
        if not pa.types.is_dictionary(column.type):
            values = column.to_numpy(zero_copy_only=False)
            if np.isinf(values).any():
                row = int(np.isinf(values).argmax())
                raise _refusal(raw.place(row), name, str(values[row]), dates)
            _check_range(raw, values, name, np.full(len(values), raw.dated) if dates else None)
            if dates:
                self._check_kind(raw, np.full(len(values), raw.dated), ~np.isnan(values), name, column)
            return values

        parsed = np.fromiter(
            (_parsed(text, dates) for text in texts_of(column)), dtype=[("value", np.float64), ("dated", np.bool_)]
        )
        codes = codes_of(column)
        values = parsed["value"][codes]
        bad = np.isinf(values)
        if bad.any():
            row = int(bad.argmax())
            raise _refusal(raw.place(row), name, column.slice(row, 1).to_pylist()[0].strip(), dates)
        _check_range(raw, values, name, parsed["dated"][codes] if dates else None)
        if dates:
            self._check_kind(raw, parsed["dated"][codes], ~np.isnan(values), name, column)
        return values

    def _check_kind(self, raw: RawBlock, dated: Flags, known: Flags, name: str, column: pa.Array) -> None:
        """Numbers and dates do not compare: together they would put the rows in a senseless order."""
        if not known.any():
            return
        if self._dated is None:
            self._dated = bool(dated[known.argmax()])
        bad = known & (dated != self._dated)
        if bad.any():
            row = int(bad.argmax())
            text = str(column.slice(row, 1).to_pylist()[0]).strip()
            raise InputError(
                f"{raw.place(row)}: column {name!r}: expected a number in every row or a date in every row, got "
                f"{shorten(text)}, after {'dates' if self._dated else 'numbers'}; correct or remove the row"
            )


def _check_range(raw: RawBlock, values: Floats, name: str, dated: Flags | None) -> None:
    """Refuse a number that is no rating or, with `dated`, no moment; raises InputError."""
    most = _LARGEST if dated is None else _LATEST
    bad = np.abs(values) > most
    if dated is not None:
        bad |= dated & (values < _YEAR_1)
    if bad.any():
        row = int(bad.argmax())
        expected = f"a number from {-most:g} to {most:g}, got {values[row]:g}"
        if dated is not None and dated[row]:
            expected = "a date from the year 1 on, got one before it"
        raise InputError(f"{raw.place(row)}: column {name!r}: expected {expected}; correct or remove the row")


def _refusal(place: str, name: str, text: str, dates: bool) -> InputError:
    point = text.replace(",", ".", 1)
    expected, remedy = "a number", "correct or remove the row"
    if dates:
        expected = "a number or a date such as 2024-05-31T12:00:00"
    elif point != text and math.isfinite(_parsed(point, False)[0]):
        remedy = f"write {point}, or pass -P decimal=comma where commas do not separate the columns"
    return InputError(f"{place}: column {name!r}: expected {expected}, got {shorten(text)}; {remedy}")


def _parsed(text: str, dates: bool) -> tuple[float, bool]:
    """The number (NaN where missing, infinite where unusable), and whether it was written as a date."""
    text = text.strip()
    if text in MISSING_NUMBERS:
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
