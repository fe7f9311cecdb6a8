"""What a recommender makes lists from, beside its like probabilities: item-to-item weights, and who rated what.

An item's score in a user's list is P(takes) * P(likes | takes) ^ exponent. The first factor comes from the user's
history by the item-to-item weights, the second from the recommender.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from recsys.arrays import Array, Codes, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.item_to_item import (
    POPULARITY_WEIGHT,
    ItemToItem,
    Regression,
    Signal,
    expect_next,
    saved_arrays,
)
from recsys.models.base.ranking import weigh
from recsys.models.base.storage import load_arrays, save_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Policy = Literal["personal", "history", "popular"]
Unknown = Literal["ignore", "refuse"]
"""What becomes of candidates and exclusions that the version does not know."""

_FILE = "lists.npz"


@dataclass(frozen=True)
class ListSettings:
    """What of a list model is given; None: it is chosen on validation."""

    signal: Signal | None = None
    ridge: float | None = None
    relative_ridge: float | None = None
    session_weight: float | None = None
    half_life: float | None = None
    exponent: float | None = None
    dense: bool | None = None
    """Whether items are regressed on all others, or on their neighbours; None: by the size of the catalogue."""


class History(NamedTuple):
    """Items by their ids, each once, and what they were rated, shape (h,); None: all of them are liked.

    The newest is the last, where the version lets age count; else their order does not matter.
    """

    items: Ids
    ratings: Floats | None = None


@dataclass(frozen=True, eq=False)
class Recommendations:
    """One list a user, in the order asked, best first."""

    items: list[Ids]
    """The ids of the items."""
    scores: list[Floats]
    """What they are ranked by: comparable within one list only."""
    probabilities: list[Floats]
    """Of a like, if the user takes the item."""
    policy: list[Policy]
    """By what a list was made: the user's own factors and history, a history alone, or what is popular."""
    notes: list[str]
    """Why a list is shorter than asked; empty where it is not."""
    ignored: int = 0
    """How many ids of histories, candidates and exclusions are unknown."""
    unknown: tuple[str, ...] = ()
    """Those of candidates and exclusions."""


@dataclass(frozen=True, eq=False)
class RatedItems:
    """Who rated what, by user: the rows learnt from, sorted by user and item."""

    starts: Array  # (n_users + 1,) int64: the rows of user u are those from starts[u] to starts[u + 1]
    items: Codes  # (n,)
    ratings: Array  # (n,) float32
    newer: Array | None = None
    """(n,) int32, how many of the user's rows are newer, where that is known and counts."""

    def newer_of(self, user: int) -> Array | None:
        """`newer` of the rows that `of` gives."""
        if self.newer is None:
            return None
        return self.newer[self.starts[user] : self.starts[user + 1]] if 0 <= user < len(self.starts) - 1 else _NOBODY

    def of(self, user: int) -> tuple[Codes, Array]:
        """A user's items, in ascending order, and ratings; a code of -1 has none."""
        if not 0 <= user < len(self.starts) - 1:
            return self.items[:0], self.ratings[:0]
        part = slice(self.starts[user], self.starts[user + 1])
        return self.items[part], self.ratings[part]

    def with_users(self, rows: Interactions, n_users: int) -> "RatedItems":
        """These, with the users of `rows`, of which each pair occurs once and the newest last, replaced or added."""
        users = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        kept = ~np.isin(users, rows.users)
        newer = None if self.newer is None else np.concatenate((self.newer[kept], _count_later(rows.users)))
        return rated_items(
            Interactions(
                np.concatenate((users[kept], rows.users)),
                np.concatenate((self.items[kept], rows.items)),
                np.concatenate((self.ratings[kept], rows.ratings)),
            ),
            n_users,
            newer,
        )


_NOBODY = np.zeros(0, np.int32)


def _count_later(users: Codes) -> Array:
    """How many later rows are of the same user, (n,) int32."""
    order = np.argsort(users, kind="stable")
    found = np.empty(len(users), np.int32)
    found[order] = np.searchsorted(users[order], users[order], "right") - 1 - np.arange(len(users))
    return found


def rated_items(rows: Interactions, n_users: int, newer: Array | None = None) -> RatedItems:
    """Sort rows, of which each pair occurs once, by user and item."""
    order = np.lexsort((rows.items, rows.users))
    starts = np.zeros(n_users + 1, np.int64)
    np.cumsum(np.bincount(rows.users, minlength=n_users), out=starts[1:])
    items, ratings = rows.items[order].astype(np.int32), rows.ratings[order].astype(np.float32)
    return RatedItems(starts, items, ratings, None if newer is None else newer[order])


@dataclass(frozen=True, eq=False)
class ListModel:
    """The part of a version that lists are made from; its codes are those of the recommender's knowledge."""

    item_to_item: ItemToItem
    regression: Regression
    exponent: float  # of the like probability
    rated: RatedItems
    popularity: Floats  # (n_items,): the share of users who rated an item

    def takes(self, items: Codes, values: Array) -> Floats:
        """P(takes), up to a factor, of every item for a history in codes: shape (n_items,)."""
        return expect_next(self.item_to_item, self.popularity, items, values)

    def takes_many(self, histories: "csr_matrix") -> Array:
        """`takes` for many histories, what items count in rows of shape (users, n_items): float32 of that shape."""
        return self.item_to_item.score_many(histories) + (POPULARITY_WEIGHT * self.popularity).astype(np.float32)

    def product(self, takes: Floats, likes: Floats) -> Floats:
        """P(takes) * P(likes | takes) ^ exponent; what is not positive stays as it is, below all others."""
        return weigh(takes, likes, self.exponent)

    def with_users(self, rows: Interactions, n_users: int) -> "ListModel":
        """This model with the histories of further users."""
        return replace(self, rated=self.rated.with_users(rows, n_users))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays; returns the rest, for the description."""
        rated = self.rated
        ages = {} if rated.newer is None else {"newer": rated.newer}
        save_arrays(
            folder / _FILE,
            **saved_arrays(self.item_to_item),
            popularity=self.popularity,
            starts=rated.starts,
            items=rated.items,
            ratings=rated.ratings,
            **ages,
        )
        chosen = self.regression
        return {
            "signal": chosen.signal,
            "ridge": chosen.ridge,
            "relative_ridge": chosen.relative_ridge,
            "session_weight": chosen.session_weight,
            "half_life": chosen.half_life,
            "exponent": self.exponent,
        }


def load_list_model(folder: Path, described: dict[str, Any]) -> ListModel:
    """Read back what `ListModel.save` wrote."""
    arrays = load_arrays(folder / _FILE)
    return ListModel(
        ItemToItem(arrays["weight_starts"], arrays["neighbours"], arrays["weights"]),
        Regression(
            described["signal"],
            described["ridge"],
            described["relative_ridge"],
            described.get("session_weight", 0.0),  # versions from before it was known do not say
            described.get("half_life"),
        ),
        described["exponent"],
        RatedItems(arrays["starts"], arrays["items"], arrays["ratings"], arrays.get("newer")),
        arrays["popularity"],
    )


def check_request(n: int, diversity: float, user_ids: Ids, history: Sequence[History | None] | None) -> None:
    """Refuse a request that no list answers; raises InputError."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"parameter 'n': a whole number of items, at least 1, is needed, got {n!r}")
    if not 0 <= diversity <= 1:
        raise InputError(f"parameter 'diversity': a number from 0 to 1 is needed, got {diversity!r}")
    if history is not None and len(history) != len(user_ids):
        raise InputError(
            f"parameter 'history': one history, or None, a user is needed, got {len(history)} for {len(user_ids)} users"
        )


def check_history(history: History, user: str, scale: tuple[float, float]) -> None:
    """Refuse a history with repeated items, or ratings that are too few, too many or outside the scale."""
    items, ratings = history
    if len(set(items)) < len(items):
        seen: set[str] = set()
        repeated = next(item for item in items if item in seen or seen.add(item))  # type: ignore[func-returns-value]
        raise InputError(f"history of user {user!r}: item {repeated!r} is there twice; keep its newest rating only")
    if ratings is None:
        return
    if len(ratings) != len(items):
        raise InputError(
            f"history of user {user!r}: one rating an item is needed, got {len(ratings)} for {len(items)} items"
        )
    low, high = scale
    for item, rating in zip(items, ratings, strict=True):
        if not low <= rating <= high:
            raise InputError(
                f"history of user {user!r}: item {item!r}: expected a rating from {low:g} to {high:g}, the scale "
                f"learnt from, got {rating:g}"
            )
