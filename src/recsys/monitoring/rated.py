"""Ratings beside what a version expected of them."""

from dataclasses import dataclass, replace

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats, Ids
from recsys.data.dataset import Dataset
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Recommender
from recsys.monitoring.expected import Adjustment, fit_adjustment

_MOST_REFERENCE = 100_000  # rows


@dataclass(frozen=True, eq=False)
class Rated:
    """Ratings that a version has not learnt from, (n,) each."""

    user_ids: Ids
    item_ids: Ids
    users: Codes  # who rated: equal codes, equal person
    ratings: Floats
    liked: Flags
    expected: Floats
    spread: Floats  # standard deviations, NaN where nothing is known of them
    like: Floats  # calibrated probabilities of a like
    user_counts: Floats  # how many ratings the version learnt from the user; 0: it does not know the user
    item_counts: Floats

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: Array) -> "Rated":
        return Rated(*(column[rows] for column in self.__dict__.values()))

    @property
    def known(self) -> "Rated":
        """Those of users and items that the version knows."""
        return self[np.flatnonzero((self.user_counts > 0) & (self.item_counts > 0))]

    @property
    def errors(self) -> Floats:
        """Rating less expected rating."""
        return self.ratings - self.expected


@dataclass(frozen=True, eq=False)
class Reference:
    """What a window is compared with: test rows of the champion's own dataset, as it expected them."""

    rated: Rated
    adjustment: Adjustment


def rate(
    recommender: Recommender,
    user_ids: Ids,
    item_ids: Ids,
    ratings: Floats,
    users: Codes,
    *,
    like_threshold: float | None = None,
    adjustment: Adjustment | None = None,
    served: Floats | None = None,
) -> Rated:
    """Score ratings by raw ids, (n,) each.

    Args:
        like_threshold: a rating of at least this is a like; None: as the version learnt.
        adjustment: of its probabilities and spreads; None: as it says them.
        served: the probability of a like with which the item was served, NaN where it was not: that counts.
    """
    adjustment = adjustment or Adjustment()
    knowledge = recommender.knowledge
    expected, like = recommender.predict(user_ids, item_ids)
    spread = adjustment.spread(expected, recommender.predictive_std(user_ids, item_ids))
    if served is not None:
        like = np.where(np.isnan(served), like, served)
    user_counts = _counts(knowledge.seen[:, 0], knowledge.user_codes(user_ids), len(knowledge.user_ids))
    item_counts = _counts(knowledge.seen[:, 1], knowledge.item_codes(item_ids), len(knowledge.item_ids))
    threshold = knowledge.like_threshold if like_threshold is None else like_threshold
    return Rated(
        user_ids,
        item_ids,
        users,
        ratings,
        ratings >= threshold,
        expected,
        np.full(len(ratings), np.nan) if spread is None else spread,
        adjustment.probability(like),
        user_counts,
        item_counts,
    )


def _counts(seen: Codes, codes: Codes, size: int) -> Floats:
    counts = np.bincount(seen, minlength=size)
    return np.where(codes >= 0, counts[codes], 0).astype(np.float64) if size else np.zeros(len(codes))


def learnt_from(knowledge: Knowledge, user_ids: Ids, item_ids: Ids) -> Flags:
    """Whether a version learnt from a rating by this user of this item: shape (n,)."""
    return knowledge.has_seen(knowledge.user_codes(user_ids), knowledge.item_codes(item_ids))


def make_reference(recommender: Recommender, dataset: Dataset, seed: int = 42) -> Reference:
    """Score the test rows of a dataset, at most 100,000 of them, and learn from them how to read the version."""
    rows = dataset.test
    if len(rows) > _MOST_REFERENCE:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), _MOST_REFERENCE, replace=False))]
    ids = dataset.user_ids[rows.users], dataset.item_ids[rows.items]
    return reference_of(recommender, *ids, rows.ratings, rows.users)


def reference_of(recommender: Recommender, user_ids: Ids, item_ids: Ids, ratings: Floats, users: Codes) -> Reference:
    """The reference of these ratings, (n,) each, of which the version has not learnt."""
    raw = rate(recommender, user_ids, item_ids, ratings, users)
    known = raw.known
    if not len(known):
        return Reference(raw, Adjustment())
    spread = None if np.isnan(known.spread).any() else known.spread
    adjustment = fit_adjustment(known.expected, spread, known.like, known.ratings, known.liked)
    said = None if spread is None else raw.spread
    spreads = adjustment.spread(raw.expected, said)
    assert spreads is not None
    return Reference(replace(raw, like=adjustment.probability(raw.like), spread=spreads), adjustment)
