"""What is known of a user and of an item before a rating: averages, counts and spreads.

All of it comes from the rows given, which are training rows. A training row's own rating must not feed its
own features either, and leaving out just that one rating is not enough: a user's leave-one-out average
falls exactly as the rating left out rises, so a tree reads the rating back from it. Training rows therefore get
their averages out of fold: from the other folds' ratings (docs/decisions/0004-out-of-fold-features.md).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.arrays import Array, Codes, Floats

FEATURES = (
    "user_average_rating",
    "user_rating_std",
    "user_rating_count",
    "user_unique_items",
    "item_average_rating",
    "item_rating_std",
    "item_rating_count",
    "item_unique_users",
)
FOLDS = 10


@dataclass(frozen=True, eq=False)
class Statistics:
    """One side's features, each of shape (n,); where nothing is known, those of all ratings and a count of 0."""

    average: Floats
    std: Floats
    count: Floats

    @property
    def unique(self) -> Floats:
        """Distinct partners: equal to the count, since cleaning leaves every pair once."""
        return self.count

    def of(self, places: Array) -> "Statistics":
        """Those at these places, shape (m,)."""
        return Statistics(self.average[places], self.std[places], self.count[places])


@dataclass(frozen=True, eq=False)
class Features:
    """The statistics of all users and all items."""

    user: Statistics
    item: Statistics

    def table(self, users: Codes, items: Codes) -> Floats:
        """The features of pairs outside the rows learnt from: shape (n, 8), columns as in FEATURES."""
        return np.stack([*_columns(self.user, users), *_columns(self.item, items)], axis=1)


class Learner:
    """Gathers the statistics of rows that come in any number of blocks; how they are cut changes no bit."""

    def __init__(self, n_users: int, n_items: int) -> None:
        self._user, self._item = (_Sums(np.zeros(n), np.zeros(n), np.zeros(n)) for n in (n_users, n_items))

    def add(self, users: Codes, items: Codes, ratings: Floats) -> None:
        """Take further rows, each of shape (n,)."""
        squares = ratings * ratings
        for sums, codes in ((self._user, users), (self._item, items)):
            at = codes.astype(np.intp)  # add.at is several times faster on these
            np.add.at(sums.rows, at, 1.0)
            np.add.at(sums.total, at, ratings)
            np.add.at(sums.squares, at, squares)

    def features(self) -> Features:
        """The statistics of all rows so far, of which there is at least one."""
        rows, total, squares = (float(column.sum()) for column in self._user)
        mean = total / rows
        std = np.sqrt(max(0.0, squares / rows - mean**2))
        return Features(_statistics(self._user, mean, std), _statistics(self._item, mean, std))


def learn_features(users: Codes, items: Codes, ratings: Floats, n_users: int, n_items: int) -> Features:
    """Statistics per user and per item from training rows."""
    learner = Learner(n_users, n_items)
    learner.add(users, items, ratings)
    return learner.features()


class History(NamedTuple):
    """One side's statistics after each moment at which it has rows, and first, at -inf, of nobody: shape (m,) each.

    Sorted by code and, within, by moment.
    """

    codes: Codes
    moments: Floats
    statistics: Statistics


def learn_history(codes: Codes, ratings: Floats, moments: Floats, final: Statistics) -> History:
    """The statistics of growing parts of the training rows, each of shape (n,); the last of each code is `final`.

    What is known before a moment holds no rating of that moment: rows joined so need no folds.
    """
    n, order = len(final.count), np.lexsort((moments, codes))
    code, moment, rating = codes[order], moments[order], ratings[order]
    begin = np.searchsorted(code, np.arange(n))
    last = np.append((code[1:] != code[:-1]) | (moment[1:] != moment[:-1]), True)  # of its moment
    sums = [np.append(0.0, np.cumsum(values)) for values in (np.ones(len(rating)), rating, rating * rating)]
    known = _Sums(*(np.append(np.zeros(n), (total[1:] - total[begin][code])[last]) for total in sums))
    everyone = float(ratings.mean()), float(ratings.std())
    all_codes = np.append(np.arange(n, dtype=np.int32), code[last])
    all_moments = np.append(np.full(n, -np.inf), moment[last])
    sorted_rows = np.lexsort((all_moments, all_codes))
    found = _statistics(known, *everyone).of(sorted_rows)
    ends = np.append(np.flatnonzero(np.diff(all_codes[sorted_rows])), len(sorted_rows) - 1)
    for growing, whole in ((found.average, final.average), (found.std, final.std), (found.count, final.count)):
        growing[ends] = whole  # to the bit, in whatever order it was added up
    return History(all_codes[sorted_rows], all_moments[sorted_rows], found)


def out_of_fold_table(
    users: Codes, items: Codes, ratings: Floats, n_users: int, n_items: int, *, seed: int, folds: int = FOLDS
) -> Floats:
    """The features of the training rows themselves: shape (n, 8), columns as in FEATURES.

    Averages and spreads come from the ratings of the other folds, also where they are those of all ratings for
    want of the user's or the item's; counts leave out the row itself.
    """
    fold = np.random.default_rng(seed).permutation(np.arange(len(ratings)) % folds)
    of_folds = _Sums(*(of_fold.sum() - of_fold for of_fold in _sums(fold, ratings, folds)))
    everyone = _statistics(of_folds, float(ratings.mean()), float(ratings.std()))
    columns: list[Floats] = []
    for codes, n in ((users, n_users), (items, n_items)):
        cells = codes.astype(np.int64) * folds + fold
        total, inside = _sums(codes, ratings, n), _sums(cells, ratings, n * folds)
        outside = _Sums(*(np.repeat(a, folds) - b for a, b in zip(total, inside, strict=True)))
        known = _statistics(outside, np.tile(everyone.average, n), np.tile(everyone.std, n))
        others = total.rows[codes] - 1.0
        columns += [known.average[cells], known.std[cells], others, others]
    return np.stack(columns, axis=1)


def _columns(side: Statistics, codes: Codes) -> list[Floats]:
    return [side.average[codes], side.std[codes], side.count[codes], side.unique[codes]]


class _Sums(NamedTuple):
    rows: Floats
    total: Floats
    squares: Floats


def _sums(codes: Array, ratings: Floats, n: int) -> _Sums:
    return _Sums(
        np.bincount(codes, minlength=n).astype(np.float64),
        np.bincount(codes, weights=ratings, minlength=n).astype(np.float64),
        np.bincount(codes, weights=ratings * ratings, minlength=n).astype(np.float64),
    )


def _statistics(sums: _Sums, mean: float | Floats, std: float | Floats) -> Statistics:
    """Average, spread and count; `mean` and `std`, alike for all or shape (n,), stand in where nothing is known."""
    count, total, squares = sums
    average = np.divide(total, count, out=np.zeros(len(count)) + mean, where=count > 0)
    variance = np.divide(squares, count, out=np.zeros(len(count)), where=count > 0) - average**2
    spread = np.where(count > 1, np.sqrt(np.maximum(variance, 0)), std)
    return Statistics(average, spread, count)
