"""The border between the highest rating that is no like and the lowest that is one, where predictions are concerned."""

import numpy as np

from recsys.arrays import Flags, Floats
from recsys.models.bayesian_mf.posterior import normal_cdf

_SPREAD = 0.25  # of the gap between two levels: how far from its middle the border may be expected


def around_threshold(ratings: Floats, threshold: float) -> tuple[float, float]:
    """The highest rating below the threshold and the lowest that is not; the threshold where there is none."""
    below, above = ratings[ratings < threshold], ratings[ratings >= threshold]
    return (float(below.max()) if len(below) else threshold), (float(above.min()) if len(above) else threshold)


def learn_border(rating: Floats, spread: Floats, liked: Flags, low: float, high: float) -> float:
    """The rating between two levels from which on likes are likely, by maximum posterior on rows held out.

    A rating is a level, its prediction is not. As in an ordered probit model (McCullagh 1980), whatever falls above
    a border counts as the higher level; half-way is only the first guess of where it is.

    Args:
        rating: predicted, (n,).
        spread: standard deviations of the predictions, (n,).
        liked: (n,).
        low: the highest rating that is no like.
        high: the lowest that is one.
    """
    if low >= high or not len(rating):
        return (low + high) / 2
    candidates = np.linspace(low, high, 101)[1:-1]
    middle, scale = (low + high) / 2, _SPREAD * (high - low)

    def log_posterior(border: float) -> float:
        share = np.clip(normal_cdf((rating - border) / spread), 1e-6, 1 - 1e-6)
        likelihood = np.log(np.where(liked, share, 1 - share)).sum()
        return float(likelihood - ((border - middle) / scale) ** 2 / 2)

    return float(candidates[np.argmax([log_posterior(border) for border in candidates])])
