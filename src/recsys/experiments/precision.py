"""How much each user counts in the mean of an arm: those who gave more are known better."""

import numpy as np

from recsys.arrays import Flags, Floats


def precisions(counts: Floats, means: Floats, within: Floats, challenger: Flags) -> Floats:
    """The weight of each user, (n,): one over the variance of the user's mean, 1 / (t + v / k) for k values.

    A confidence sequence needs differences whose changes do not depend on what they were before. While users keep
    giving, that holds for means weighted by precision, and not for plain ones: a user's early mean is uncertain and
    tends back to the others' later (Scharfstein, Tsiatis and Robins, 1997: efficient estimates have independent
    increments).

    Args:
        counts: k, values of each user, 1 or more.
        means: of each user's values.
        within: sum of squares of each user's values around that mean.
        challenger: whose users are the challenger's.
    """
    taste, noise = variances(counts, means, within, challenger)
    return 1 / (taste + noise / counts)


def variances(counts: Floats, means: Floats, within: Floats, challenger: Flags) -> tuple[float, float]:
    """The variance t between users and v between a user's values, of both arms together; the arguments of precisions.

    Those of a one-way analysis with random effects (Searle, Casella and McCulloch, 1992, "Variance Components"), from
    plain means of users:

        v = sum of within / sum of (k - 1),    t = max(0, variance of the users' means in their arm - v mean(1 / k))

    Where nobody gave two values, or nobody's differ, 1 and 0: all users count alike.
    """
    n, free = len(counts), np.sum(counts - 1)
    noise = np.sum(within) / free if free > 0 else 0.0
    if n <= 2 or noise <= 0:
        return 1.0, 0.0
    between = 0.0
    for arm in (challenger, ~challenger):
        if arm.any():
            between += np.sum((means[arm] - np.mean(means[arm])) ** 2)
    return max(float(between / (n - 2) - noise * np.mean(1 / counts)), 0.0), float(noise)
