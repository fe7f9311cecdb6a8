"""A confidence sequence of the difference of two arms' means over users: an interval that holds at every look."""

import math
from typing import NamedTuple

import numpy as np

from recsys.arrays import Floats


class Summary(NamedTuple):
    """The users of an arm: how many, the mean of their values, and their number times that mean's variance."""

    users: int
    mean: float
    variance: float


class Interval(NamedTuple):
    """A difference, challenger less champion, and its two bounds; each of them fails with probability alpha at most."""

    difference: float
    low: float
    high: float


# The drift that is expected, N(m, s²), as parts of the gain asked about: of those tried by simulation the quickest
# there, and no slower than a mixture around zero at half of it and at twice as much.
MEAN, DEVIATION = 0.8, 0.25
NOTHING = Interval(math.nan, -math.inf, math.inf)


def summarise(values: Floats, weights: Floats) -> Summary:
    """The summary of one value a user, (n,), where users count by weights, (n,); of nobody, zeros.

    With w / sum of w as the weights, the variance of the mean is sum of w² (x - mean)², times n / (n - 1).
    """
    n = len(values)
    if not n:
        return Summary(0, 0.0, 0.0)
    parts = weights / weights.sum()
    mean = float(parts @ values)
    return Summary(n, mean, n * n / max(n - 1, 1) * float(parts**2 @ (values - mean) ** 2))


def boundary(information: Floats | float, alpha: float, gain: float) -> Floats:
    """What the sum of a standard Brownian motion stays below, at all times at once, with probability 1 - alpha."""
    return mixture_boundary(information, alpha, MEAN * gain, DEVIATION * gain)


def mixture_boundary(information: Floats | float, alpha: float, mean: float, deviation: float) -> Floats:
    """The boundary of a normal mixture around a drift.

    For a drift t, exp(t S - t² v / 2) is a martingale of mean one, and so is its mean over t ~ N(m, s²) (Robbins 1970;
    m = 0 is the two-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon, 2021, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", equation 14). It exceeds 1 / alpha at any time v with probability alpha at most
    (Ville's inequality), and that is where S exceeds

        u(v) = (sqrt((1 + s² v) (m² + 2 s² log(sqrt(1 + s² v) / alpha))) - m) / s²

    With m > 0 it is tight where a challenger of about that drift is decided, and valid for every drift.

    Args:
        information: intrinsic times v, any shape.
        mean: m, 0 or more.
        deviation: s.
    """
    variance = deviation**2
    total = 1 + variance * information
    root = np.sqrt(total * (mean**2 + 2 * variance * np.log(np.sqrt(total) / alpha)))
    return (root - mean) / variance


def interval(champion: Summary, challenger: Summary, *, alpha: float, gain: float, least_users: int) -> Interval:
    """The confidence sequence at its present look.

    Asymptotic in the number of users (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024, "Time-uniform central
    limit theory and asymptotic confidence sequences"): with information I = 1 / (s0² / n0 + s1² / n1), the score I d is
    a Brownian motion with drift in the limit, so that the bounds are d ± u(I) / I. Further events of a user make the
    user's value more precise and enter by I too; for that users are weighted by precision (precision.py).

    Args:
        gain: the difference for which it is tuned.
        least_users: of each arm; with fewer nothing is known.
    """
    if min(champion.users, challenger.users) < max(least_users, 2):
        return NOTHING
    spread = champion.variance / champion.users + challenger.variance / challenger.users
    difference = challenger.mean - champion.mean
    if spread <= 0:  # everybody said the same: no variance to judge by
        return Interval(difference, -math.inf, math.inf)
    reach = float(boundary(1 / spread, alpha, gain)) * spread
    return Interval(difference, difference - reach, difference + reach)
