"""What a version's lists would have brought, from lists that another version showed (off-policy evaluation)."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from recsys.arrays import Array, Flags, Floats


class Replayed(NamedTuple):
    """Rewards a list, over users, and how much of the version's lists the record can say anything of."""

    users: int
    shown: float  # what the lists that were shown brought
    low: float  # of the difference, the version's lists less those shown
    high: float
    covered: float  # the share of the version's lists that the record speaks for


def replay(
    rewards: Floats,
    propensities: Floats,
    listed: Flags,
    lists: Array,
    sizes: Array,
    users: Array,
    *,
    most_weight: float = 20.0,
    alpha: float = 0.05,
) -> Replayed:
    """Inverse propensity weighting by item, clipped, with an interval that holds what clipping and gaps leave open.

    For a list of n items with rewards r in [0, 1], shown items i of propensities p_i, and the set V of those that the
    version would list, the clipped weights are w_i = min(1 / p_i, M), and

        low  = Σ_V w r,    high = low + max(0, n - Σ_V w)

    Σ_V w has mean n where every item of V could be shown and nothing is clipped (Horvitz and Thompson, 1952; clipping:
    Ionides, 2008); what is missing of n belongs to items that the record is silent about, each of which brings at most
    1. Both are averaged by user, and the interval of the difference to what was shown is normal over users.

    Args:
        rewards, propensities, listed: (s,) of the items shown: what each brought, the probability of its being shown
            (NaN: it was certain), and whether the version would list it.
        lists: (s,) the list of each item.
        sizes: (l,) how many items the version would have listed in each list's place.
        users: (l,) codes of whom each list was shown to.
    """
    chances = np.where(np.isnan(propensities), 1.0, propensities)
    weights = np.minimum(1 / np.maximum(chances, 1e-9), most_weight) * listed
    count = len(sizes)
    low = np.bincount(lists, weights * rewards, count)
    mass = np.bincount(lists, weights, count)
    shown = np.bincount(lists, rewards, count)
    _, user = np.unique(users, return_inverse=True)
    of_user = np.bincount(user)
    mean = [np.bincount(user, of_list) / of_user for of_list in (low - shown, mass, shown, sizes)]
    gap = np.maximum(mean[3] - mean[1], 0.0)
    z, n = float(ndtri(1 - alpha / 2)), len(of_user)
    below, above = mean[0], mean[0] + gap
    errors = [float(side.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf for side in (below, above)]
    covered = min(1.0, float(mean[1].sum() / max(mean[3].sum(), 1e-9)))
    bounds = float(below.mean()) - z * errors[0], float(above.mean()) + z * errors[1]
    return Replayed(n, float(mean[2].mean()), *bounds, covered)
