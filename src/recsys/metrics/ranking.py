"""How good lists of items are."""

import numpy as np

from recsys.arrays import Array, Flags, Floats


def ndcg(relevant: Flags, relevant_counts: Array) -> Floats:
    """Normalised discounted cumulative gain per user (Järvelin and Kekäläinen 2002), binary relevance.

    Args:
        relevant: (users, k), whether the item at each rank of a user's list is relevant.
        relevant_counts: (users,), how many relevant items each user has, at least 1.
    """
    k = relevant.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(relevant_counts, k) - 1]
    return np.asarray((relevant @ discounts) / ideal, np.float64)


def recall(relevant: Flags, relevant_counts: Array) -> Floats:
    """The share of a user's relevant items that are in the list; arguments as for `ndcg`."""
    return np.asarray(relevant.sum(axis=1) / relevant_counts, np.float64)


def coverage(recommended: Array, n_items: int) -> float:
    """The share of the catalogue that is recommended to anyone; `recommended` holds item codes, any shape."""
    return len(np.unique(recommended)) / n_items
