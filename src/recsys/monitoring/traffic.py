"""Lists that were served, and feedback that came, as columns."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from recsys.arrays import Array, Codes, Flags, Floats, Ids
from recsys.runtime.memory import uncollected

RATING = "rating"  # the kind of feedback whose value is one
_MILLISECONDS = 1e11  # a number above is a time in milliseconds, not in seconds


class Coder(dict[str, int]):
    """Codes of names, given in the order in which they are first met."""

    def __missing__(self, name: str) -> int:
        self[name] = code = len(self)
        return code

    def of(self, names: Iterable[str]) -> Codes:
        """The codes of names, shape (n,)."""
        return np.fromiter(map(self.__getitem__, names), np.int32)

    @property
    def names(self) -> Ids:
        """The names by code."""
        return np.array(list(self), object)


@dataclass(frozen=True, eq=False)
class Names:
    """The codes that traffic and feedback of one window share."""

    users: Coder
    items: Coder
    versions: Coder

    @classmethod
    def empty(cls) -> "Names":
        """No names yet."""
        return cls(Coder(), Coder(), Coder())


@dataclass(frozen=True, eq=False)
class Traffic:
    """Lists as they were written, (l,), and the items that they showed, (s,), one list behind the other."""

    requests: Ids  # (l,)
    moments: Floats  # (l,) seconds since 1970
    users: Codes  # (l,)
    versions: Codes  # (l,)
    arms: Ids  # (l,)
    policies: Ids  # (l,)
    sizes: Array  # (l,) how many items each showed
    items: Codes  # (s,)
    likes: Floats  # (s,) float32, the probability of a like when it was served
    positions: Array  # (s,) in the ranking, from 0
    propensities: Floats  # (s,) of the item being in that list, NaN where the server does not explore

    def __len__(self) -> int:
        return len(self.moments)

    def select(self, lists: Array) -> "Traffic":
        """These lists, ascending, and what they showed."""
        chosen = np.zeros(len(self), np.bool_)
        chosen[lists] = True
        shown = np.repeat(chosen, self.sizes)
        return Traffic(
            self.requests[lists],
            self.moments[lists],
            self.users[lists],
            self.versions[lists],
            self.arms[lists],
            self.policies[lists],
            self.sizes[lists],
            self.items[shown],
            self.likes[shown],
            self.positions[shown],
            self.propensities[shown],
        )

    @property
    def lists(self) -> Array:
        """The list of each item shown, (s,)."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.sizes)


@dataclass(frozen=True, eq=False)
class Feedback:
    """Events in the order of their arrival, (n,) each."""

    users: Codes
    items: Codes
    kinds: Ids
    values: Floats  # NaN where there is none
    moments: Floats  # as the client said, seconds since 1970, NaN where it said nothing or nothing that is a time
    received: Floats
    requests: Ids  # None where it named none

    def __len__(self) -> int:
        return len(self.received)

    def __getitem__(self, rows: Array) -> "Feedback":
        return Feedback(*(column[rows] for column in self.__dict__.values()))

    @property
    def repeated(self) -> Flags:
        """Rows that say what an earlier one says, at the same moment: one event under another key.

        An event other than a rating may come twice without a moment.
        """
        table = pd.DataFrame(
            {"user": self.users, "item": self.items, "kind": self.kinds, "value": self.values, "at": self.moments}
        )
        same = table.duplicated(keep="first").to_numpy()
        return np.asarray(same & (~np.isnan(self.moments) | (self.kinds == RATING)), np.bool_)


@uncollected()
def read_traffic(pages: Iterable[Sequence[Sequence[Any]]], names: Names) -> Traffic:
    """Traffic of pages of rows by `archive.LIST_COLUMNS`; memory is that of the columns."""
    parts: list[tuple[Any, ...]] = []
    same: dict[str, str] = {}  # one object for each arm and policy, where every row brings its own
    for page in pages:
        request, moment, user, version, arm, policy, first, items, likes, chances = zip(*page, strict=True)
        shown = json.loads(f"[{','.join(items)}]")
        sizes = np.fromiter(map(len, shown), np.int32, len(shown))
        starts = np.cumsum(sizes) - sizes
        within = np.arange(sizes.sum(), dtype=np.int32) - np.repeat(starts, sizes).astype(np.int32)
        parts.append(
            (
                np.array(request, object),
                np.array(moment, np.float64),
                names.users.of(user),
                names.versions.of(version),
                np.array([same.setdefault(name, name) for name in arm], object),
                np.array([same.setdefault(name, name) for name in policy], object),
                sizes,
                names.items.of(chain.from_iterable(shown)),
                np.frombuffer(b"".join(likes), "<f4"),
                within + np.repeat(np.array(first, np.int32), sizes),
                _propensities(chances, sizes),
            )
        )
    if not parts:
        empty, none = np.empty(0, object), np.empty(0, np.int32)
        numbers = np.empty(0)
        return Traffic(empty, np.empty(0), none, none, empty, empty, none, none, numbers, none, numbers)
    return Traffic(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _propensities(recorded: Sequence[bytes | None], sizes: Array) -> Floats:
    if not any(recorded):
        return np.full(int(sizes.sum()), np.nan, "<f4")
    unknown = [
        np.full(size, np.nan, "<f4").tobytes() if one is None else one
        for one, size in zip(recorded, sizes, strict=True)
    ]
    return np.frombuffer(b"".join(unknown), "<f4")


@uncollected()
def read_feedback(pages: Iterable[Sequence[Sequence[Any]]], names: Names) -> Feedback:
    """Feedback of pages of rows by `archive.FEEDBACK_COLUMNS`."""
    rows = list(chain.from_iterable(pages))
    _, user, item, kind, value, moment, received, request = zip(*rows, strict=True) if rows else [()] * 8
    return Feedback(
        names.users.of(user),
        names.items.of(item),
        np.array(kind, object),
        np.array([np.nan if one is None else one for one in value], np.float64),
        parse_moments(moment),
        np.array(received, np.float64),
        np.array(request, object),
    )


def parse_moments(texts: Sequence[str]) -> Floats:
    """Times as clients write them, ISO 8601 or a number of seconds or milliseconds: seconds since 1970, else NaN."""
    if not any(texts):
        return np.full(len(texts), np.nan)
    column = pd.Series(texts, dtype=object)
    number = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    with np.errstate(invalid="ignore"):
        number = np.where(number > _MILLISECONDS, number / 1000, number)
    dated = pd.to_datetime(column.where(np.isnan(number)), errors="coerce", utc=True, format="ISO8601")
    seconds = (dated - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.where(np.isnan(number), seconds.to_numpy(np.float64), number)
