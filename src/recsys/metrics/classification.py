"""How well scores or probabilities tell likes from other ratings.

Scikit-learn is imported where it is used: it takes a second, and a training in several processes needs none of it.
"""

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats


def auc(liked: Flags, score: Floats) -> float:
    """Area under the ROC curve: how often a liked row outscores another; ties count half. NaN for one class."""
    from sklearn import metrics as sk

    return float(sk.roc_auc_score(liked, score)) if _both(liked) else float("nan")


def auc_by_ranks(liked: Flags, score: Array) -> float:
    """The same as `auc`, within rounding, in a tenth of the time: by counting pairs (Mann and Whitney 1947)."""
    if not _both(liked):
        return float("nan")
    # Sorted apart: to sort numbers takes half of the time of finding their order.
    likes, others = (np.sort(score.take(np.flatnonzero(rows))) for rows in (liked, ~liked))
    below = np.searchsorted(others, likes)
    tied = others.take(below, mode="clip") == likes
    ties = np.searchsorted(others, likes[tied], side="right") - below[tied]
    return float(below.sum() + ties.sum() / 2) / (len(likes) * len(others))


def user_aucs(users: Codes, liked: Flags, score: Floats) -> tuple[Codes, Floats]:
    """The AUC within each user who has both classes: their codes and values, each of shape (users with both,).

    By rank sums (Mann and Whitney 1947), all users at once: AUC = (R - p(p + 1) / 2) / (p n), where R is the sum
    of the ranks of the user's p likes among their p + n rows, tied rows sharing their mean rank.
    """
    order = np.lexsort((score, users))
    users, liked, score = users[order], liked[order], score[order]
    first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    sizes = np.diff(np.r_[first, len(users)])
    start = np.repeat(first, sizes)
    tie_first = np.flatnonzero(np.r_[True, (users[1:] != users[:-1]) | (score[1:] != score[:-1])])
    tie_sizes = np.diff(np.r_[tie_first, len(users)])
    rank = np.repeat(tie_first + (tie_sizes + 1) / 2, tie_sizes) - start
    positives = np.add.reduceat(liked.astype(np.float64), first)
    rank_sums = np.add.reduceat(np.where(liked, rank, 0.0), first)
    both = (positives > 0) & (positives < sizes)
    p, n = positives[both], (sizes - positives)[both]
    return users[first[both]], (rank_sums[both] - p * (p + 1) / 2) / (p * n)


def accuracy(liked: Flags, probability: Floats) -> float:
    """The share of rows where `probability >= 0.5` says what was true."""
    return float(np.mean(liked == (probability >= 0.5)))


def f1_score(liked: Flags, probability: Floats) -> float:
    """Harmonic mean of precision and recall of `probability >= 0.5`; 0 where nothing is liked or said to be."""
    from sklearn import metrics as sk

    return float(sk.f1_score(liked, probability >= 0.5, zero_division=0))


def log_loss(liked: Flags, probability: Floats) -> float:
    """Mean negative log-likelihood in nats, of probabilities kept a millionth away from 0 and 1."""
    from sklearn import metrics as sk

    return float(sk.log_loss(liked, np.clip(probability, 1e-6, 1 - 1e-6), labels=[False, True]))


def calibration_error(liked: Flags, probability: Floats, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015): mean distance of probabilities from shares of likes, by bins.

    The bins hold equally many rows as far as ties allow: rows of one probability share a bin, so that the order of the
    rows does not matter.
    """
    order = np.argsort(probability, kind="stable")
    ordered = probability[order]
    rank = np.searchsorted(ordered, ordered)  # of the first row with the same probability
    bin_of = rank * bins // len(ordered)
    excess = np.bincount(bin_of, ordered - liked[order])
    return float(np.abs(excess).sum() / len(ordered))


def _both(liked: Flags) -> bool:
    return bool(liked.any()) and not bool(liked.all())
