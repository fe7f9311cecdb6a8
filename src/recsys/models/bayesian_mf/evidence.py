"""How sure validation rows make it that one model predicts better than another; rows of one user may be correlated."""

import math
from collections.abc import Sequence

import numpy as np

from recsys.arrays import Codes, Flags, Floats

CLEAR, _WORSE = 1.0, -1.0  # standard errors
CLEAR_OF_MANY = 2.0  # for one of several that are tried: the best of them is ahead by chance, too
GROWTH = 1.05  # of a chain's noise precision, from the first third of the kept draws to the last one
REFIT_GROWTH = 1.15  # from the first third of a first fit to the last one of the second, which has more ratings


def is_clearly_better(*gains: float, least: float = CLEAR) -> bool:
    """Whether one of these gains, in standard errors, is at least `least`, and none is a loss of 1 or more."""
    return max(gains) >= least and min(gains) > _WORSE


def has_settled(precisions: Sequence[float], growth: float = GROWTH) -> bool:
    """Whether the noise of a chain's kept draws, given as its precision, stays as large as it was.

    Where most users have a rating or two, nothing tells the noise of a rating from factors of its user's own. Then the
    factors may go on growing, and the noise shrinking, long after the first draws have been averaged: the average does
    well on validation rows, and the chain where it ends does not.
    """
    third = len(precisions) // 3
    return third == 0 or float(np.mean(precisions[-third:])) < growth * float(np.mean(precisions[:third]))


def standard_errors(gain: Floats, users: Codes) -> float:
    """The mean of gains, (n,), divided by its standard error; 0 if undefined. A user's gains may be correlated."""
    error = mean_error(gain, users)
    return float(gain.mean() / error) if error else 0.0


def mean_error(values: Floats, users: Codes) -> float:
    """The standard error of the mean of values, (n,), which of one user may be correlated; 0 of none."""
    if not len(values):
        return 0.0
    of_user = np.bincount(users, weights=values - values.mean())
    return math.sqrt((of_user**2).sum()) / len(values)


def auc_standard_errors(liked: Flags, better: Floats, worse: Floats, users: Codes) -> float:
    """The AUC of the scores `better`, (n,), less that of `worse`, divided by the difference's standard error.

    The error is that of DeLong, DeLong and Clarke-Pearson (1988), summed by user (Obuchowski 1997). 0 if undefined.
    """
    if liked.all() or not liked.any():
        return 0.0
    places = _placements(liked, better) - _placements(liked, worse)
    error = _placements_error(liked, places, users)
    return float(places[liked].mean()) / error if error else 0.0


def auc_error(liked: Flags, score: Floats, users: Codes) -> float:
    """The standard error of the AUC of scores, (n,), likewise; 0 if undefined."""
    if liked.all() or not liked.any():
        return 0.0
    return _placements_error(liked, _placements(liked, score), users)


def log_losses(liked: Flags, like_probability: Floats) -> Floats:
    """The logarithmic loss of each row, (n,)."""
    right = np.where(liked, like_probability, 1 - like_probability)
    return np.asarray(-np.log(np.maximum(right, 1e-6)))


def _placements_error(liked: Flags, places: Floats, users: Codes) -> float:
    """The standard error of the mean placement of liked rows, which is that of the others too."""
    deviations = places - places[liked].mean()
    of_row = np.where(liked, deviations / liked.sum(), deviations / (~liked).sum())
    return math.sqrt((np.bincount(users, weights=of_row) ** 2).sum())


def _placements(liked: Flags, score: Floats) -> Floats:
    """For each row, the share of rows of the other class on the right side of it; a tie is half a row."""
    placed = np.empty(len(score))
    for own in (True, False):
        others = np.sort(score[liked != own])
        mine = score[liked == own]
        below = (np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / 2 / len(others)
        placed[liked == own] = below if own else 1 - below
    return placed


def rank_auc(liked: Flags, score: Floats) -> float | None:
    """The AUC of scores without ties, by rank sums; None where one class is missing."""
    positive = int(liked.sum())
    negative = len(liked) - positive
    if not positive or not negative:
        return None
    ranks = np.flatnonzero(liked[np.argsort(score)]) + 1.0
    return float((ranks.sum() - positive * (positive + 1) / 2) / (positive * negative))
