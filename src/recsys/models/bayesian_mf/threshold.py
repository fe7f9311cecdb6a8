"""The like threshold on the scale of predictions: the predicted rating above which a rating counts as a like.

Ratings are levels (such as 1 to 5), predictions are continuous. The threshold therefore lies somewhere between the
highest level that is not a like and the lowest level that is one. It is learnt on the validation rows.
"""

import numpy as np

from recsys.arrays import Flags, Floats
from recsys.models.bayesian_mf.posterior import normal_cdf

_PRIOR_STD = 0.25  # of the threshold around the middle between the two levels, as a share of their distance
_STEP = 10  # candidates of the threshold from one to the next that is tried first


def adjacent_levels(ratings: Floats, like_threshold: float) -> tuple[float, float]:
    """The highest rating below `like_threshold` and the lowest that is not; `like_threshold` if there is none."""
    is_below = ratings < like_threshold
    low = float(np.where(is_below, ratings, -np.inf).max(initial=-np.inf))
    high = float(np.where(is_below, np.inf, ratings).min(initial=np.inf))
    return (low if np.isfinite(low) else like_threshold), (high if np.isfinite(high) else like_threshold)


def learn_threshold(rating: Floats, spread: Floats, liked: Flags, low: float, high: float) -> float:
    """The threshold of maximum posterior probability, given validation rows.

    As in an ordered probit model (McCullagh 1980), a row is a like with the probability that its rating, drawn from a
    normal distribution around the prediction, exceeds the threshold. The prior is normal around the middle between
    `low` and `high`. Without rows, or if `low` is not below `high`, the threshold is that middle.

    Args:
        rating: predicted ratings, shape (n,).
        spread: standard deviations of the predictions, shape (n,).
        liked: whether each row is a like, shape (n,).
        low: the highest rating that is not a like.
        high: the lowest rating that is a like.
    """
    if low >= high or not len(rating):
        return (low + high) / 2
    candidates = np.linspace(low, high, 101)[1:-1]
    middle, scale = (low + high) / 2, _PRIOR_STD * (high - low)

    def log_posterior(threshold: float) -> float:
        share = np.clip(normal_cdf((rating - threshold) / spread), 1e-6, 1 - 1e-6)
        likelihood = np.log(np.where(liked, share, 1 - share)).sum()
        return float(likelihood - ((threshold - middle) / scale) ** 2 / 2)

    # The posterior has one mode (its logarithm is concave), so that it is near the best of some.
    best = max(range(0, len(candidates), _STEP), key=lambda at: log_posterior(float(candidates[at])))
    near = candidates[max(best - _STEP, 0) : best + _STEP + 1]
    return float(near[np.argmax([log_posterior(threshold) for threshold in near])])
