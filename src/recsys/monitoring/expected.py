"""What a version should reach on rows whose ratings are not known yet, in closed form.

With calibrated probabilities of a like, every pair of rows says how probable it is that the first is liked and the
second is not; the AUC follows. With calibrated spreads, the expected squared errors are their squares. NannyML has the
former for classifiers, by simulation (confidence-based performance estimation).
"""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Flags, Floats
from recsys.models.base.calibration import LikeCalibration, calibrate

_EDGE = 1e-6
_GROUPS = 10


def expected_auc(probability: Floats) -> float:
    """The expected AUC of rows ranked by their probabilities of a like, (n,); ties count half. NaN where n < 2.

    Over all pairs of rows i, j: the sum of p_i (1 - p_j) where i stands above j, divided by that of all pairs. It is
    the ratio of two expectations, which for thousands of rows is the expectation of the ratio.
    """
    values, counts = np.unique(probability, return_counts=True)
    likes, others = values * counts, (1 - values) * counts
    below = np.cumsum(others) - others
    # Within a tie half of the pairs count; a row makes no pair with itself.
    won = float(np.sum(likes * (below + others / 2)) - np.sum(counts * values * (1 - values)) / 2)
    pairs = float(likes.sum() * others.sum() - np.sum(counts * values * (1 - values)))
    return won / pairs if pairs > 0 else float("nan")


def expected_rmse(spread: Floats) -> float:
    """The expected root mean squared error where each rating has its expected value and this spread, (n,)."""
    return float(np.sqrt(np.mean(np.square(spread)))) if len(spread) else float("nan")


@dataclass(frozen=True, eq=False)
class Adjustment:
    """What was learnt on reference rows, which the version has not learnt from, about its own probabilities.

    Without reference rows nothing is changed.
    """

    like: LikeCalibration | None = None
    edges: Floats | None = None  # of expected ratings, between groups
    factors: Floats | None = None  # (groups,) of the spread, or the spread itself where the family says none
    bias: float = 0.0  # of the expected ratings

    def probability(self, probability: Floats) -> Floats:
        """Probabilities of a like, calibrated: shape (n,)."""
        return probability if self.like is None else self.like.probability(log_odds(probability))

    def spread(self, rating: Floats, spread: Floats | None) -> Floats | None:
        """Standard deviations of ratings around these expected ones, (n,); None where nothing is known of them."""
        if self.edges is None or self.factors is None:
            return spread
        factors = self.factors[np.searchsorted(self.edges, rating, side="right")]
        return factors if spread is None else factors * spread


def log_odds(probability: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities kept away from 0 and 1."""
    inside = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def fit_adjustment(rating: Floats, spread: Floats | None, like: Floats, ratings: Floats, liked: Flags) -> Adjustment:
    """Learn from reference rows, (n,) each; ratings near the ends of the scale are less spread, so in groups."""
    edges = np.unique(np.quantile(rating, np.arange(1, _GROUPS) / _GROUPS))
    group = np.searchsorted(edges, rating, side="right")
    counts = np.maximum(np.bincount(group, minlength=len(edges) + 1), 1)
    squares = np.bincount(group, np.square(ratings - rating), len(edges) + 1)
    said = counts if spread is None else np.bincount(group, np.square(spread), len(edges) + 1)
    factors = np.sqrt(squares / np.maximum(said, 1e-12))
    return Adjustment(calibrate(log_odds(like), liked), edges, factors, float(np.mean(ratings - rating)))
