"""The second half of the ratings as visits of real users, in the order of time.

A visit is up to VISIT ratings that a user gave one after the other. Before it the user asks for a list; of the list the
user takes an item that the user really rated, in this visit or later: that is what a good list finds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VISIT = 10  # ratings
LIST = 3  # items


@dataclass(frozen=True)
class Visit:
    """What a user does: asks for a list, takes one of the items if it is there, and rates."""

    user: str
    moment: float
    ratings: tuple[tuple[str, float], ...]  # item, rating
    wanted: frozenset[str]  # items that the user rates now or later


def halves(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Visit]]:
    """The older half of rows (user, item, rating, timestamp), and the visits of the newer one in the order of time."""
    rows = rows[np.argsort(rows[:, 3], kind="stable")]
    older, newer = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    of_user: dict[str, list[Sequence[int]]] = defaultdict(list)
    for row in newer.tolist():
        of_user[str(row[0])].append(row)
    visits = []
    for user, given in of_user.items():
        for start in range(0, len(given), VISIT):
            some = given[start : start + VISIT]
            wanted = frozenset(str(item) for _, item, _, _ in given[start:])
            ratings = tuple((str(item), float(rating)) for _, item, rating, _ in some)
            visits.append(Visit(user, float(some[0][3]), ratings, wanted))
    return older, sorted(visits, key=lambda visit: visit.moment)
