"""Ranking: scores of items in, lists out.

Equal scores are ordered by item code, which is codepoint order of the ids.
"""

import numpy as np

from recsys.arrays import Codes, Flags, Floats

NO_LISTS = (
    "cannot make lists, because it was saved before there were any or was trained with lists=false; train it again "
    "with the same data and lists=true"
)
"""Of a version without a list model: why it answers no list, and what to do."""

POOL = 200
"""So many items of highest P(takes) have their like probability computed and are ranked by the product."""


def best_items(scores: Floats, n: int, allowed: Flags | None = None) -> Codes:
    """The codes of the n allowed items of highest score, best first; fewer only where fewer are allowed.

    Args:
        scores: (n_items,), finite.
        n: at least 1.
        allowed: (n_items,); None allows all.
    """
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
        n = min(n, int(np.count_nonzero(allowed)))
    chosen = highest(scores, n)
    return chosen[(-scores[chosen]).argsort(kind="stable")]


def highest(scores: Floats, n: int) -> Codes:
    """The codes of the n highest scores, (n_items,), in ascending order: of equal scores the lowest codes."""
    if n >= len(scores):
        return np.arange(len(scores), dtype=np.int32)
    if n <= 0:
        return np.empty(0, np.int32)
    bound = _bound(scores, n)
    may = None if bound == -np.inf else (scores >= bound).nonzero()[0]
    found = scores if may is None else scores[may]
    parted = found.copy()  # methods, as NumPy's functions take as long as the work where there are a few hundred scores
    parted.partition(len(found) - n)
    least = float(parted[len(found) - n])
    chosen = (found >= least).nonzero()[0]
    if len(chosen) > n:
        ties = np.flatnonzero(found[chosen] == least)
        chosen = np.delete(chosen, ties[n - len(chosen) :])
    return (chosen if may is None else may[chosen]).astype(np.int32)


_COLUMNS = 10  # of a table of the scores, for each item that is wanted
_ROWS = 8  # of fewer, looking for the bound costs what it saves


def _bound(scores: Floats, n: int) -> float:
    """What at least n scores reach, and few more: the n-th highest of the largest scores of the columns of a table.

    To look for the n highest among those alone takes a third of the time of looking among all, for 62,000 items.
    """
    columns = _COLUMNS * n
    rows = len(scores) // columns
    if rows < _ROWS:
        return -np.inf
    highest = scores[: rows * columns].reshape(rows, columns).max(axis=0)
    return float(np.partition(highest, columns - n)[columns - n])


def weigh(takes: Floats, likes: Floats, exponent: float) -> Floats:
    """P(takes) * P(likes | takes) ^ exponent; what is not positive stays as it is, below all others. All (m,)."""
    positive, scores = takes > 0, takes * likes**exponent
    return scores if np.count_nonzero(positive) == takes.size else np.where(positive, scores, takes)


def best_of_rows(scores: Floats, n: int) -> Codes:
    """`best_items` of every row, but in ascending order: shape (rows, min(n, n_items)).

    Args:
        scores: (rows, n_items), of any float type; -inf for what is not allowed. Where fewer than n are allowed, the
            lowest codes of those that are not fill the row.
    """
    n = min(n, scores.shape[1])
    least = np.partition(scores, scores.shape[1] - n, axis=1)[:, [scores.shape[1] - n]]
    chosen = scores > least
    missing = n - np.count_nonzero(chosen, axis=1)
    ties = scores == least
    chosen |= ties & (np.cumsum(ties, axis=1, dtype=np.int32) <= missing[:, None])
    return np.nonzero(chosen)[1].reshape(len(scores), n).astype(np.int32)


def diversify(scores: Floats, similarities: Floats, n: int, diversity: float) -> Codes:
    """The positions of n of m items by maximal marginal relevance (Carbonell and Goldstein 1998), in their order.

    Each next item is the one of highest (1 - diversity) * score - diversity * its largest similarity to those chosen.

    Args:
        scores: (m,), best first; they are moved to the range from 0 to 1.
        similarities: (m, m), from 0 to 1.
        diversity: from 0, by score alone, to 1, by similarity alone.
    """
    width = scores.max() - scores.min() if len(scores) else 0.0
    relevance = (scores - scores.min()) / width if width else np.ones(len(scores))
    closest, chosen = np.zeros(len(scores)), list[int]()
    left = np.ones(len(scores), bool)
    for _ in range(min(n, len(scores))):
        gain = np.where(left, (1 - diversity) * relevance - diversity * closest, -np.inf)
        best = int(np.argmax(gain))  # the first of equal ones
        chosen.append(best)
        left[best] = False
        closest = np.maximum(closest, similarities[best])
    return np.array(chosen, np.int32)


def note_of(left: int, n: int, exclude_seen: bool) -> str:
    """Why a list of `left` items is shorter than the n asked for; empty where it is not."""
    if left >= n:
        return ""
    shown = "none is left" if left == 0 else f"only {left} are left"
    return f"{shown} of the items asked for{' that the user has not rated' if exclude_seen else ''}"
