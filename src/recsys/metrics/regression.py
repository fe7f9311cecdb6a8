"""How far predicted ratings are from those given."""

import numpy as np

from recsys.arrays import Floats


def rmse(ratings: Floats, predicted: Floats) -> float:
    """Root mean squared error over all rows."""
    return float(np.sqrt(np.mean((ratings - predicted) ** 2)))


def mae(ratings: Floats, predicted: Floats) -> float:
    """Mean absolute error over all rows."""
    return float(np.mean(np.abs(ratings - predicted)))
