"""Rating biases: how much a user's ratings, and an item's ratings, lie above the global mean.

Every recommender uses them for users and items that it does not know, and evaluation uses them as a baseline.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.arrays import Codes, Floats

if TYPE_CHECKING:
    from scipy.sparse import coo_array

DAMPING = 5.0
_SWEEPS = 10
_ROWS = 1 << 20  # of a matrix, or more


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
    rows, shape = [(users, items, ratings)], (n_users, n_items)
    matrices = list(_matrices(rows, shape))
    return _learn(rows, lambda: matrices, shape, damping)


def learn_biases_from(
    blocks: Callable[[], Iterable[tuple[Codes, Codes, Floats]]], n_users: int, n_items: int, damping: float = DAMPING
) -> Biases:
    """The same as `learn_biases`, for rows that are read in blocks. `blocks` is called 21 times, once a pass."""
    shape = n_users, n_items
    return _learn(blocks(), lambda: _matrices(blocks(), shape), shape, damping)


def _learn(
    rows: Iterable[tuple[Codes, Codes, Floats]],
    matrices: Callable[[], Iterable[tuple["coo_array", "coo_array"]]],
    shape: tuple[int, int],
    damping: float,
) -> Biases:
    counts, sums = [np.full(size, damping) for size in shape], [np.zeros(size) for size in shape]
    for users, items, ratings in rows:
        for codes, size, count, total in zip((users, items), shape, counts, sums, strict=True):
            count += np.bincount(codes, minlength=size)
            total += np.bincount(codes, weights=ratings, minlength=size)
    mean = float(sums[0].sum() / (counts[0] - damping).sum())
    above = [total - mean * (count - damping) for total, count in zip(sums, counts, strict=True)]
    user, item = np.zeros(shape[0]), np.zeros(shape[1])
    for _ in range(_SWEEPS):
        item = (above[1] - sum(of_items @ user for _, of_items in matrices())) / counts[1]
        user = (above[0] - sum(of_users @ item for of_users, _ in matrices())) / counts[0]
    return Biases(mean, user, item)


def _matrices(
    rows: Iterable[tuple[Codes, Codes, Floats]], shape: tuple[int, int]
) -> Iterator[tuple["coo_array", "coo_array"]]:
    """Who rated what, users by items, and the transpose, of some rows after the other. All share an array of ones."""
    from scipy.sparse import coo_array  # a tenth of a second to import

    ones = np.ones(0)
    for users, items in _together(rows, max(_ROWS, sum(shape))):  # of fewer rows a product's result costs the most
        if len(users) > len(ones):
            ones = np.ones(len(users))
        matrix = coo_array((ones[: len(users)], (users, items)), shape)
        yield matrix, matrix.T


def _together(rows: Iterable[tuple[Codes, Codes, Floats]], many: int) -> Iterator[tuple[Codes, Codes]]:
    """The codes of the same rows, from `many` to twice as many at a time; at the end perhaps fewer."""
    waiting: list[tuple[Codes, Codes]] = []
    for users, items, _ in rows:
        for start in range(0, len(users), many):
            waiting.append((users[start : start + many], items[start : start + many]))
            if sum(len(part) for part, _ in waiting) >= many:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Codes, Codes]]) -> tuple[Codes, Codes]:
    users, items = zip(*parts, strict=True)
    return (users[0], items[0]) if len(parts) == 1 else (np.concatenate(users), np.concatenate(items))
