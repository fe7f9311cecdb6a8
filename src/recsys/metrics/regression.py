"""How far predicted ratings are from those given."""

import numpy as np

from recsys.arrays import Floats

_HALF_WIDTH_95 = 1.959964  # standard deviations


def rmse(ratings: Floats, predicted: Floats) -> float:
    """Root mean squared error over all rows."""
    return float(np.sqrt(np.mean((ratings - predicted) ** 2)))


def mae(ratings: Floats, predicted: Floats) -> float:
    """Mean absolute error over all rows."""
    return float(np.mean(np.abs(ratings - predicted)))


def interval_coverage(ratings: Floats, predicted: Floats, spread: Floats) -> float:
    """The share of ratings within the 95% interval of a normal distribution around the prediction.

    Args:
        spread: (n,) the standard deviation that was predicted for each rating.
    """
    return float(np.mean(np.abs(ratings - predicted) <= _HALF_WIDTH_95 * spread))
