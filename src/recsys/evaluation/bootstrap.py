"""How sure the difference between two models' measures is: a bootstrap over users, paired by common weights.

Ratings of one user are not independent, so users are drawn, not rows (a cluster bootstrap, Field and Welsh 2007). A
replicate weights every user's rows by a count from Poisson(1), which draws users with replacement without keeping their
number fixed (Hanley and MacGibbon 2006). The weights follow from the test set alone: the replicates of any number
of models are computed apart, at any time and place, and subtracted they compare two models on the same draws.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import exp, factorial
from typing import TYPE_CHECKING

import numpy as np

from recsys import metrics
from recsys.arrays import Codes, Flags, Floats, Ids

if TYPE_CHECKING:
    from scipy.sparse import csr_array

REPLICATES = 2_000
FEWEST_REPLICATES = 200
_MOST_WORK = 2_000_000_000  # rows times replicates: beyond a million rows there are fewer replicates
_BLOCK = 50  # replicates at a time
_CHUNK = 2048  # runs at a time: their weights then stay in the processor's cache
_FEWEST_DEFINED = 0.9
_HOPELESS = 3.0  # standard errors


@dataclass(frozen=True)
class Comparison:
    """A difference with its percentile interval and a two-sided p-value for "no difference".

    `ahead` is the share of the replicates in which it is above zero, those in which it is zero counting half.
    """

    difference: float
    low: float
    high: float
    level: float
    p_value: float
    ahead: float


@dataclass(frozen=True)
class Correction:
    """The interval and the p-value of a difference that was one of `compared`, of which any could have been chosen."""

    low: float
    high: float
    p_value: float
    compared: int


def count_replicates(rows: int) -> int:
    """How many replicates a test set of so many rows gets."""
    return int(np.clip(_MOST_WORK // max(rows, 1), FEWEST_REPLICATES, REPLICATES))


def replicate_auc(users: Codes, user_ids: Ids, liked: Flags, score: Floats, *, test_digest: str) -> Floats:
    """The AUC of every replicate; NaN where a replicate draws no likes or nothing else.

    Args:
        users: (n,) the user of each row, positions in `user_ids`.
        liked: (n,) the class of each row.
        score: (n,) higher where a like is more probable; ties count half.
        test_digest: hexadecimal; with the ids of the users it decides the weights.
    """
    present, rank = _ranked(users, user_ids)
    of_row = np.searchsorted(present, users)
    order = np.lexsort((liked, score))  # within a tie the others first
    runs = _find_runs(rank[of_row[order]], liked[order], score[order], len(present))
    replicates = count_replicates(len(liked))

    def block(start: int) -> Floats:
        return _weighted_auc(_weights(test_digest, start, len(present)), runs)

    with ThreadPoolExecutor() as pool:  # SciPy lets go of the interpreter's lock
        return np.concatenate(list(pool.map(block, range(0, replicates, _BLOCK))))[:replicates]


def replicate_user_auc(users: Codes, user_ids: Ids, liked: Flags, score: Floats, *, test_digest: str) -> Floats:
    """The mean AUC within users of every replicate, on the same draws as `replicate_auc`, whose arguments it takes.

    NaN where a replicate draws no user who has both classes.
    """
    whose, values = metrics.user_aucs(users, liked, score)
    return replicate_mean(users, user_ids, whose, values, test_digest=test_digest)


def replicate_mean(users: Codes, user_ids: Ids, whose: Codes, values: Floats, *, test_digest: str) -> Floats:
    """The mean over users of a measure that each has one of, in every replicate of `replicate_auc`.

    NaN where a replicate draws none of them.

    Args:
        users: (n,) the user of each test row, positions in `user_ids`.
        whose: (k,) users among them, and
        values: (k,) the measure of each.
        test_digest: hexadecimal; with the ids of the users it decides the weights.
    """
    present, rank = _ranked(users, user_ids)
    rows = rank[np.searchsorted(present, whose)]
    found = []
    replicates = count_replicates(len(users))
    for start in range(0, replicates, _BLOCK):
        weights = _weights(test_digest, start, len(present))[rows]  # (k, block)
        with np.errstate(invalid="ignore"):
            found.append(values @ weights / weights.sum(axis=0, dtype=np.float64))
    return np.concatenate(found)[:replicates]


def draw_users(users: Codes, user_ids: Ids, rows: int, test_digest: str) -> Iterator[Floats]:
    """How often each of these users, (u,), is drawn in some replicates at a time: float32 of shape (u, some).

    Args:
        rows: that decides how many replicates there are.
    """
    present, rank = _ranked(users, user_ids)
    replicates = count_replicates(rows)
    for start in range(0, replicates, _BLOCK):
        weights = _weights(test_digest, start, len(present))[rank[np.searchsorted(present, users)]]
        yield weights[:, : replicates - start]


def compare(auc: float, replicates: Floats, other_auc: float, other: Floats, *, level: float) -> Comparison | None:
    """How much higher `auc` is than `other_auc`, from their replicates on one test set.

    Returns None where too many replicates are undefined: a few users decide everything.
    """
    differences = replicates - other
    defined = differences[np.isfinite(differences)]
    if _are_too_few(defined, differences):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (len(defined) + 1))
    ahead = float(np.mean(defined > 0) + np.mean(defined == 0) / 2)
    return Comparison(auc - other_auc, float(low), float(high), level, p_value, ahead)


def correct(gains: Floats, replicates: Floats, *, level: float) -> list[Correction | None]:
    """Intervals and p-values that hold for all of several gains at once, and so for whichever is chosen.

    A gain is as surprising as the largest of all would be if none was real: in every replicate the largest deviation
    from what was measured is taken over all, each in units of its own standard error (White 2000, Hansen 2005). For a
    single gain that is what `compare` says. Gains of more than `_HOPELESS` standard errors below zero could not have
    been the largest by luck: they are not counted, and have no correction.

    Args:
        gains: (k,) differences to one version, as measured.
        replicates: (k, replicates) the same differences by replicate.

    Returns:
        One of each gain; None where it is not counted, or where too many replicates are undefined.
    """
    found: list[Correction | None] = [None] * len(gains)
    if len(gains) == 0:
        return found
    defined = replicates[:, np.isfinite(replicates).all(axis=0)]
    if _are_too_few(defined[0], replicates[0]):
        return found
    errors = defined.std(axis=1)
    counted = gains >= -_HOPELESS * errors
    moving = counted & (errors > 0)  # who answers as the other does differs by nothing, for sure
    compared = int(counted.sum())
    deviations = (gains[moving, None] - defined[moving]) / errors[moving, None]
    highest, lowest = (deviations.max(axis=0), deviations.min(axis=0)) if moving.any() else (np.zeros(1), np.zeros(1))
    above, below = np.quantile(highest, (1 + level) / 2), np.quantile(lowest, (1 - level) / 2)
    for position in np.flatnonzero(counted):
        gain, error = float(gains[position]), float(errors[position])
        p_value = 1.0
        if error > 0:
            tail = min((highest >= gain / error).sum(), (lowest <= gain / error).sum())
            p_value = min(1.0, 2 * (int(tail) + 1) / (len(highest) + 1))
        found[position] = Correction(float(gain - above * error), float(gain - below * error), p_value, compared)
    return found


def _are_too_few(defined: Floats, replicates: Floats) -> bool:
    return len(replicates) == 0 or len(defined) < _FEWEST_DEFINED * len(replicates)


def _ranked(users: Codes, user_ids: Ids) -> tuple[Codes, Codes]:
    """The users there are, and the row of each in the weights: they go by id, whatever the codes."""
    present = np.unique(users)
    rank = np.empty(len(present), np.int32)
    rank[np.argsort(user_ids[present])] = np.arange(len(present))
    return present, rank


def _poisson_table() -> Floats:
    """Poisson(1) counts for every 16-bit number: taken from raw bits, the weights outlive NumPy's distributions."""
    edges = np.cumsum([exp(-1) / factorial(count) for count in range(9)])
    return np.searchsorted(edges, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)


_POISSON = _poisson_table()


def _weights(test_digest: str, start: int, users: int) -> Floats:
    """How often each user is drawn in the replicates from `start` on: float32 of shape (users, block)."""
    bits = np.random.PCG64([int(test_digest, 16), start])
    raw = bits.random_raw((users * _BLOCK + 3) // 4).view(np.uint16)[: users * _BLOCK]
    return _POISSON[raw].reshape(users, _BLOCK)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Rows sorted by score, cut into runs within which every like outscores every other row, or all are tied.

    `likes` and `others` count each user's rows: sparse, of shape (runs, users). `tied` has shape (runs,).
    """

    likes: "csr_array"
    others: "csr_array"
    tied: Flags


def _find_runs(users: Codes, liked: Flags, score: Floats, n_users: int) -> _Runs:
    from scipy.sparse import csr_array  # a tenth of a second to import, of which a policy needs nothing

    first = np.r_[True, score[1:] != score[:-1]]
    group = np.cumsum(first) - 1
    likes, sizes = np.bincount(group, liked), np.bincount(group)
    mixed = ((likes > 0) & (likes < sizes))[group]  # shares its score with a row of the other class
    before_liked, before_mixed = np.r_[False, liked[:-1]], np.r_[False, mixed[:-1]]
    begins = first & (mixed | before_mixed | (~liked & before_liked))
    run = np.cumsum(begins) - begins[0]

    def count(rows: Flags) -> csr_array:
        shape = int(run[-1]) + 1, n_users
        return csr_array((np.ones(int(rows.sum()), np.float32), (run[rows], users[rows])), shape=shape)

    tied = np.zeros(int(run[-1]) + 1, bool)
    tied[run[mixed]] = True
    return _Runs(count(liked), count(~liked), tied)


def _weighted_auc(weights: Floats, runs: _Runs) -> Floats:
    """AUC per replicate: the weighted share of (like, other) pairs in the right order, ties counting half."""
    ordered, likes, others = np.zeros((3, _BLOCK))
    for start in range(0, len(runs.tied), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        mine = runs.likes[chunk] @ weights  # (runs, replicates)
        other = runs.others[chunk] @ weights
        below = np.cumsum(other, axis=0, dtype=np.float64)
        ordered += np.einsum("nb,nb->b", mine, below) + others * mine.sum(axis=0)
        tied = runs.tied[chunk]
        ordered -= np.einsum("nb,nb->b", mine[tied], other[tied], dtype=np.float64) / 2
        others += below[-1]
        likes += mine.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(ordered / (likes * others), np.float64)
