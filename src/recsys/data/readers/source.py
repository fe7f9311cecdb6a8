"""The columns of a ratings file: their names, and what a file's reader hands over before any cleaning."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError

SEPARATORS = ",;\t|"
"""Of columns, in tables beside the ratings; what separates those of ratings is found by the dialect."""

_LONGEST_VALUE = 60  # characters of a value shown in a message


@dataclass(frozen=True)
class ColumnNames:
    """The names of the columns in the file.

    Only ratings and timestamps may be absent, and only by default. A rating of None is not read, whatever the file has.
    """

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = "rating"
    timestamp: str = "timestamp"

    def parameter(self, role: str) -> str:
        """The parameter that names a column."""
        return f"{role}_column"


class WeightedNames(ColumnNames):
    """Where a number says how much was taken: it is read as ratings are."""

    def parameter(self, role: str) -> str:
        """The parameter that names a column."""
        return "weight" if role == "rating" else super().parameter(role)


@dataclass(frozen=True)
class TextFormat:
    """How delimited text is written; auto: as the file says."""

    separator: str = "auto"
    encoding: str = "auto"
    decimal: str = "auto"
    """point, comma or auto."""


@dataclass(frozen=True, eq=False)
class RawBlock:
    """Some rows of a file as they stand there, in columns of the same length.

    Ids are dictionary arrays of text, null or blank where missing. Ratings and timestamps are float64
    (null or NaN where missing), or dictionary arrays of text that is still to be parsed.
    """

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    ratings: pa.Array | None  # None: the file has none
    timestamps: pa.Array | None
    place: Callable[[int], str]  # index of a row -> how a message names it, such as "ratings.csv:17"
    dated: bool = False  # timestamps that are float64 were dates in the file


@dataclass(frozen=True, eq=False)
class Source:
    """One file that has been looked at, but for its rows; reading them may raise InputError."""

    path: Path
    found: tuple[str, ...]  # "user", "item", and perhaps "rating" and "timestamp"
    headed: bool  # whether the file names its columns
    blocks: Callable[[], Iterator[RawBlock]]  # its rows, some at a time, in order
    notes: tuple[str, ...] = ()


def check_names(columns: ColumnNames) -> None:
    """Refuse two column parameters that name the same column."""
    owners: dict[str, str] = {}
    for role, name in vars(columns).items():
        if name is None:
            continue
        if name in owners:
            raise InputError(
                f"parameters {owners[name]} and {columns.parameter(role)} both name column {name!r}; "
                f"each needs its own: pass -P {columns.parameter(role)}=<another column>"
            )
        owners[name] = columns.parameter(role)


def find_or_raise_positions(place: str, present: Sequence[str], columns: ColumnNames) -> dict[str, int]:
    """Where each column stands among `present`; without "rating" and "timestamp" where the file has none."""
    found = {}
    for parameter, name in vars(columns).items():
        if name is None:
            continue
        count = present.count(name)
        if count > 1:
            raise InputError(f"{place}: column {name!r} is there {count} times; rename or remove all but one of them")
        if count == 1:
            found[parameter] = present.index(name)
        elif parameter in ("user", "item") or name != getattr(ColumnNames(), parameter):
            listed = shorten(", ".join(present), 4 * _LONGEST_VALUE)
            raise InputError(
                f"{place}: needed column {shorten(name)} is missing, the columns are {listed}; "
                f"name yours with -P {columns.parameter(parameter)}=<column>"
            )
    return found


def seconds(moments: pa.Array) -> pa.Array:
    """Timestamps in microseconds as seconds since 1970, in float64."""
    return pc.divide(moments.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)


def shorten(value: object, longest: int = _LONGEST_VALUE) -> str:
    """`value` in quotes, cut where it is long, so that one message stays one line."""
    text = str(value)
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")
