"""How good lists of items are.

A list is a row of item codes, best first; one that is shorter than k ends with -1. Of equally good items a list decides
itself which goes first (by item code: `recsys.models.base.ranking`), so that no measure here depends on a tie.
"""

from typing import TYPE_CHECKING

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def hits(lists: Codes, rows: Codes, items: Codes, n_items: int) -> Flags:
    """Whether each item of each list is relevant, shape (users, k).

    Args:
        lists: (users, k) item codes below n_items.
        rows: (n,) whose list each relevant item belongs to, a row of `lists`.
        items: (n,) the relevant items; those of code -1 are in no list.
    """
    rows, items = rows[items >= 0], items[items >= 0]
    places = np.arange(len(lists), dtype=np.int64)[:, None] * n_items + lists
    return np.asarray(np.isin(places, rows.astype(np.int64) * n_items + items) & (lists >= 0))


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


def precision(relevant: Flags) -> Floats:
    """The share of k places that hold a relevant item, per user; places that a short list leaves empty count."""
    return np.asarray(relevant.mean(axis=1), np.float64)


def average_precision(relevant: Flags, relevant_counts: Array) -> Floats:
    """The precision up to each relevant item of the list, summed, over the most there can be: at most k of them.

    Its mean over users is MAP at k. Arguments as for `ndcg`.
    """
    k = relevant.shape[1]
    at_rank = np.cumsum(relevant, axis=1) / np.arange(1, k + 1)
    return np.asarray((at_rank * relevant).sum(axis=1) / np.minimum(relevant_counts, k), np.float64)


def reciprocal_rank(relevant: Flags) -> Floats:
    """One over the rank of the first relevant item, 0 where none is in the list. Its mean over users is MRR at k."""
    return np.where(relevant.any(axis=1), 1 / (relevant.argmax(axis=1) + 1), 0.0)


def coverage(recommended: Array, n_items: int) -> float:
    """The share of the catalogue that is recommended to anyone; `recommended` holds item codes, any shape."""
    return len(np.unique(recommended)) / n_items


def novelty(lists: Codes, counts: Array, n_users: int) -> Floats:
    """Mean self-information of a list's items in bits, per user (Zhou et al. 2010): 0 is what everybody has rated.

    Args:
        lists: (users, k); users with an empty list get NaN.
        counts: (n_items,) how many of the n_users rated each item; one that nobody rated counts as rated once.
    """
    bits = np.log2(n_users / np.maximum(counts, 1))
    return _mean_of_lists(np.where(lists >= 0, bits[lists], 0.0), lists)


def gini(recommended: Array, n_items: int) -> float:
    """Gini coefficient of how often each item of the catalogue is recommended: 0 all alike, near 1 one item only.

    `recommended` holds item codes, any shape, at least one.
    """
    times = np.sort(np.bincount(recommended.ravel(), minlength=n_items))
    rank = np.arange(1, n_items + 1)
    return float((2 * rank - n_items - 1) @ times / (n_items * times.sum()))


def intra_list_diversity(lists: Codes, rated: "csr_matrix") -> Floats:
    """1 less the mean cosine similarity of a list's pairs, per user (Ziegler et al. 2005); NaN below two items.

    Args:
        lists: (users, k).
        rated: (raters, n_items), 1 where a rater rated an item.
    """
    shown, place = np.unique(lists, return_inverse=True)
    columns = rated.tocsc()[:, np.maximum(shown, 0)]
    norms = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0), np.float64)).ravel()
    together = (columns.T @ columns).tocsr()
    place = place.reshape(lists.shape)
    similar, pairs = np.zeros(len(lists)), np.zeros(len(lists))
    for first in range(lists.shape[1]):
        for second in range(first + 1, lists.shape[1]):
            one, other = place[:, first], place[:, second]
            there = (lists[:, first] >= 0) & (lists[:, second] >= 0)
            cosine = np.asarray(together[one, other]).ravel() / np.maximum(norms[one] * norms[other], 1e-12)
            similar += np.where(there, cosine, 0.0)
            pairs += there
    return 1 - _quotient(similar, pairs)


def _mean_of_lists(values: Floats, lists: Codes) -> Floats:
    sizes = (lists >= 0).sum(axis=1)
    return _quotient(values.sum(axis=1), sizes)


def _quotient(sums: Floats, counts: Array) -> Floats:
    found: Floats = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return found
