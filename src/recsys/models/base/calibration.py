"""The probability of a like for a predicted rating, calibrated on rows that the model was not trained on."""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Flags, Floats


@dataclass(frozen=True)
class LikeCalibration:
    """probability of a like = 1 / (1 + exp(-(slope * predicted rating + intercept)))."""

    slope: float
    intercept: float

    def probability(self, ratings: Floats) -> Floats:
        """Probabilities of a like, shape (n,), for predicted ratings of shape (n,)."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * ratings + self.intercept))), np.float64)


def calibrate(predicted: Floats, liked: Flags) -> LikeCalibration:
    """Fit a logistic regression of likes on predicted ratings, for rows not trained on (Platt 1999).

    If there is only one class, or likes are not more frequent at higher predictions, every rating gets the same
    probability: the share of likes, smoothed by one like and one that is not.

    Args:
        predicted: predicted ratings, shape (n,); n may be 0.
        liked: whether each row is a like, shape (n,).
    """
    if liked.any() and not liked.all():
        from sklearn.linear_model import LogisticRegression  # a second to import: only where it is used

        from recsys.runtime.blas import threads_for

        centre, spread = float(predicted.mean()), float(predicted.std()) or 1.0
        with threads_for(1):  # of two unknowns
            model = LogisticRegression(C=1e3).fit(((predicted - centre) / spread)[:, None], liked)
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return LikeCalibration(slope, float(model.intercept_[0]) - slope * centre)
    share = (liked.sum() + 1) / (len(liked) + 2)
    return LikeCalibration(0.0, float(np.log(share / (1 - share))))
