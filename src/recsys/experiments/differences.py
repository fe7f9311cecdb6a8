"""A confidence sequence of the difference of two arms' means over users: an interval that holds at every look."""

import math
from typing import NamedTuple

import numpy as np

from recsys.arrays import Floats


class Summary(NamedTuple):
    """The users of an arm: how many, and mean and variance of their values."""

    users: int
    mean: float
    variance: float


class Interval(NamedTuple):
    """A difference, challenger less champion, and its two bounds; each of them fails with probability alpha at most."""

    difference: float
    low: float
    high: float


NOTHING = Interval(math.nan, -math.inf, math.inf)


def summarise(values: Floats) -> Summary:
    """The summary of one value a user, (n,); of nobody, zeros."""
    if not len(values):
        return Summary(0, 0.0, 0.0)
    return Summary(len(values), float(values.mean()), float(values.var(ddof=1)) if len(values) > 1 else 0.0)


def boundary(information: Floats | float, alpha: float, gain: float) -> Floats:
    """What the sum of a standard Brownian motion stays below, at all times at once, with probability 1 - alpha.

    The one-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon (2021, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", equation 14), at intrinsic time v with r = 1 / gain²:

        u(v) = sqrt(2 (v + r) log(1 + sqrt((v + r) / r) / (2 alpha)))

    Args:
        information: intrinsic times, any shape.
        gain: the drift at which it is nearly tightest; it is valid for every one.
    """
    prior = 1 / gain**2
    total = np.asarray(information, np.float64) + prior
    return np.asarray(np.sqrt(2 * total * np.log1p(np.sqrt(total / prior) / (2 * alpha))), np.float64)


def interval(champion: Summary, challenger: Summary, *, alpha: float, gain: float, least_users: int) -> Interval:
    """The confidence sequence at its present look.

    Asymptotic in the number of users (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024, "Time-uniform central
    limit theory and asymptotic confidence sequences"): with information I = 1 / (s0² / n0 + s1² / n1), the score I d is
    a Brownian motion with drift in the limit, so that the bounds are d ± u(I) / I. Further events of a user make the
    user's value more precise and enter by I too, as in group-sequential tests of repeated measures (Scharfstein,
    Tsiatis and Robins, 1997).

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
