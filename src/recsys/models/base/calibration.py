"""The probability of a like, calibrated on ratings not learnt from."""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Flags, Floats


@dataclass(frozen=True)
class LikeCalibration:
    """The probability of a like, given an expected rating: 1 / (1 + exp(-(slope * rating + intercept)))."""

    slope: float
    intercept: float

    def probability(self, ratings: Floats) -> Floats:
        """Probabilities of shape (n,), in the order of the ratings."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * ratings + self.intercept))), np.float64)


def calibrate(predicted: Floats, liked: Flags) -> LikeCalibration:
    """Fit on ratings predicted for rows not learnt from (Platt 1999).

    Where they hold one class only, or likes are not more frequent at higher predictions, the probability is
    the smoothed share of likes for every rating.
    """
    if liked.any() and not liked.all():
        from sklearn.linear_model import LogisticRegression  # a second to import: only where it is used

        centre, spread = float(predicted.mean()), float(predicted.std()) or 1.0
        model = LogisticRegression(C=1e3).fit(((predicted - centre) / spread)[:, None], liked)
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return LikeCalibration(slope, float(model.intercept_[0]) - slope * centre)
    share = (liked.sum() + 1) / (len(liked) + 2)
    return LikeCalibration(0.0, float(np.log(share / (1 - share))))
