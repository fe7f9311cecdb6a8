"""Means, differences and AUCs with intervals over users, whose rows are not independent of each other."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.arrays import Array, Codes, Flags, Floats

FEWEST_USERS = 30


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error over users, and how many there were."""

    value: float
    error: float
    rows: int
    users: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval of Student's t for so many users; all numbers for fewer than two."""
        if self.users < 2:
            return -np.inf, np.inf
        half = self.error * float(stats.t.ppf((1 + level) / 2, self.users - 1))
        return self.value - half, self.value + half


def mean_over_users(values: Floats, users: Codes) -> Estimate:
    """The mean of rows, (n,), with the standard error of a sample of users (a ratio estimate; Cochran 1977, 6.4)."""
    n = len(values)
    if n == 0:
        return Estimate(float("nan"), float("nan"), 0, 0)
    mean = float(values.mean())
    return Estimate(mean, _error(values - mean, users, n), n, len(np.unique(users)))


def _error(influence: Floats, users: Codes, total: float) -> float:
    """The standard error of a sum over rows divided by `total`, from what each user adds."""
    _, of_row = np.unique(users, return_inverse=True)
    sums = np.bincount(of_row, influence)
    m = len(sums)
    return float(np.sqrt(np.square(sums).sum() * m / (m - 1)) / total) if m > 1 else float("inf")


def rmse_over_users(errors: Floats, users: Codes) -> Estimate:
    """The root mean squared error, by the delta method."""
    squares = mean_over_users(np.square(errors), users)
    root = float(np.sqrt(squares.value))
    return Estimate(root, squares.error / (2 * root) if root > 0 else 0.0, squares.rows, squares.users)


def auc_over_users(score: Floats, liked: Flags, users: Codes) -> Estimate:
    """The AUC of rows, with the standard error over users (DeLong et al. 1988 for clusters, Obuchowski 1997)."""
    p, n = int(liked.sum()), int((~liked).sum())
    if not p or not n:
        return Estimate(float("nan"), float("nan"), len(liked), len(np.unique(users)))
    share = np.empty(len(score))
    share[liked] = _share_below(score[liked], score[~liked])
    share[~liked] = 1 - _share_below(score[~liked], score[liked])
    value = float(share[liked].mean())
    influence = (share - value) / np.where(liked, p, n)
    return Estimate(value, _error(influence, users, 1.0), len(liked), len(np.unique(users)))


def _share_below(values: Floats, others: Array) -> Floats:
    """For each value the share of the others below it, equal ones counting half."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((low + high) / (2 * len(ordered)), np.float64)


@dataclass(frozen=True)
class Difference:
    """A value less another, its standard error, and the two-sided p-value for "no difference"."""

    value: float
    error: float
    p_value: float


def compare(one: Estimate, other: Estimate) -> Difference:
    """Welch's test of two independent estimates, each with the degrees of freedom of its users."""
    value = one.value - other.value
    error = float(np.hypot(one.error, other.error))
    if not np.isfinite(value) or not np.isfinite(error):
        return Difference(value, error, 1.0)
    if error == 0:
        return Difference(value, 0.0, 1.0 if value == 0 else 0.0)
    parts = [(part.error**4) / max(part.users - 1, 1) for part in (one, other)]
    freedom = error**4 / sum(parts) if sum(parts) > 0 else 1.0
    return Difference(value, error, float(2 * stats.t.sf(abs(value / error), freedom)))


def exactly(value: float) -> Estimate:
    """A value that is known."""
    return Estimate(value, 0.0, 0, 2)
