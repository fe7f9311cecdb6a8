"""Rating biases: how much a user's ratings, and an item's ratings, lie above the global mean.

Every recommender uses them for users and items that it does not know, and evaluation uses them as a baseline.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.arrays import Codes, Floats

DAMPING = 5.0
_SWEEPS = 10
_PIECE = 1 << 14  # rows

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Biases:
    """rating(u, i) = mean + user[u] + item[i]; the bias of an unknown user or item is 0."""

    mean: float
    user: Floats
    item: Floats

    def rating(self, users: Codes, items: Codes) -> Floats:
        """Expected ratings, not clipped, shape (n,); a code of -1 is an unknown user or item."""
        return self.mean + np.where(users >= 0, self.user[users], 0.0) + np.where(items >= 0, self.item[items], 0.0)


def learn_biases(
    users: Codes, items: Codes, ratings: Floats, n_users: int, n_items: int, damping: float = DAMPING
) -> Biases:
    """Ridge regression of the ratings on user and item: solved exactly for items, then for users, ten times.

    Args:
        damping: the ridge penalty. It acts like so many extra ratings at the mean, for every user and item, and pulls
            biases that are learnt from few ratings towards 0 (Koren 2010, "Factor in the neighbors", section 2.1).
    """
    return learn_biases_from(lambda: [(users, items, ratings)], n_users, n_items, damping)


def learn_biases_from(
    blocks: Callable[[], Iterable[tuple[Codes, Codes, Floats]]], n_users: int, n_items: int, damping: float = DAMPING
) -> Biases:
    """The same as `learn_biases`, for rows that are read in blocks. `blocks` is called 21 times, once a pass."""
    n, total = 0, 0.0
    user_count, item_count = np.full(n_users, damping), np.full(n_items, damping)
    for users, items, ratings in blocks():
        n, total = n + len(ratings), total + float(ratings.sum())
        user_count += np.bincount(users, minlength=n_users)
        item_count += np.bincount(items, minlength=n_items)
    mean = total / n
    user, item = np.zeros(n_users), np.zeros(n_items)
    for _ in range(_SWEEPS):
        sums = np.zeros(n_items)
        for of_user, of_item, ratings in _pieces(blocks()):
            np.add.at(sums, of_item, ratings - mean - user.take(of_user))
        item = sums / item_count
        sums = np.zeros(n_users)
        for of_user, of_item, ratings in _pieces(blocks()):
            np.add.at(sums, of_user, ratings - mean - item.take(of_item))
        user = sums / user_count
    return Biases(mean, user, item)


def _pieces(blocks: Iterable[tuple[Codes, Codes, Floats]]) -> Iterator[tuple[Indices, Indices, Floats]]:
    """The same rows in the same order, as many at a time as stay in the processor's cache."""
    for users, items, ratings in blocks:
        for start in range(0, len(ratings), _PIECE):
            part = slice(start, start + _PIECE)
            yield users[part].astype(np.intp), items[part].astype(np.intp), ratings[part]
