"""Realised measures of versions and arms on feedback, beside what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys import metrics
from recsys.arrays import Array, Flags, Floats
from recsys.monitoring.estimates import Estimate, auc_over_users, mean_over_users, rmse_over_users
from recsys.monitoring.expected import expected_auc, expected_rmse
from recsys.monitoring.rated import Rated
from recsys.monitoring.traffic import Traffic

LIGHT = 20
"""Ratings learnt from a user below which the user is a light one."""


@dataclass(frozen=True)
class Measure:
    """One line of the table of measures: `expected` and the bounds are NaN where there are none."""

    of: str  # "version 3", "users: new"
    name: str
    realised: float
    low: float
    high: float
    expected: float
    rows: int
    users: int


def measure_ratings(of: str, rated: Rated) -> list[Measure]:
    """AUC, RMSE, calibration of ratings, and what was expected of them."""
    if not len(rated):
        return []
    share = mean_over_users(rated.liked.astype(np.float64), rated.users)
    spread = rated.spread[np.isfinite(rated.spread)]
    found = [
        _line(of, "rmse", rmse_over_users(rated.errors, rated.users), expected_rmse(spread)),
        _line(of, "auc", auc_over_users(rated.like, rated.liked, rated.users), expected_auc(rated.like)),
        _line(of, "like_share", share, float(rated.like.mean())),
        _line(of, "rating", mean_over_users(rated.ratings, rated.users), float(rated.expected.mean())),
    ]
    error = metrics.calibration_error(rated.liked, rated.like)
    return [*found, Measure(of, "calibration_error", error, np.nan, np.nan, np.nan, len(rated), share.users)]


def measure_segments(rated: Rated) -> list[Measure]:
    """The same for new, light and heavy users."""
    counts = rated.user_counts
    segments = {"new": counts == 0, "light": (counts > 0) & (counts < LIGHT), "heavy": counts >= LIGHT}
    parts = {f"users: {name}": rated[np.flatnonzero(rows)] for name, rows in segments.items()}
    return [line for name, part in parts.items() for line in measure_ratings(name, part)]


def measure_ndcg(of: str, traffic: Traffic, lists: Array, hits: Array) -> list[Measure]:
    """NDCG of the lists that got a like: how far up what was liked stood, of all that was liked of the list.

    Args:
        lists: the lists to measure, ascending.
        hits: places in `traffic.items` that were liked, each once.
    """
    list_of = traffic.lists[hits]
    here = np.isin(list_of, lists)
    list_of, positions = list_of[here], traffic.positions[hits[here]]
    if not len(list_of):
        return []
    found, at = np.unique(list_of, return_inverse=True)
    gains = np.bincount(at, 1 / np.log2(positions + 2.0))
    ideal = np.cumsum(1 / np.log2(np.arange(int(np.bincount(at).max())) + 2.0))[np.bincount(at) - 1]
    return [_line(of, "ndcg", mean_over_users(gains / ideal, traffic.users[found]), float("nan"))]


def measure_reward(of: str, traffic: Traffic, lists: Array, hits: Array) -> list[Measure]:
    """Likes a list, of all lists; arguments as of `measure_ndcg`."""
    if not len(lists):
        return []
    likes = np.bincount(traffic.lists[hits], minlength=len(traffic))[lists].astype(np.float64)
    most = float(np.bincount(traffic.lists, traffic.likes, len(traffic))[lists].mean())
    if_all_were_rated = Measure(of, "likes_if_all_were_rated", most, np.nan, np.nan, np.nan, len(lists), 0)
    return [_line(of, "likes_per_list", mean_over_users(likes, traffic.users[lists]), float("nan")), if_all_were_rated]


def _line(of: str, name: str, realised: Estimate, expected: float) -> Measure:
    low, high = realised.interval()
    return Measure(of, name, realised.value, low, high, expected, realised.rows, realised.users)


def find(measures: Sequence[Measure], of: str, name: str) -> Measure | None:
    """One line of the table."""
    return next((one for one in measures if (one.of, one.name) == (of, name)), None)


def calibration_curve(liked: Flags, like: Floats, groups: int = 10) -> tuple[Floats, Floats]:
    """Mean probability and share of likes of groups of equally many rows, (g,) each."""
    order = np.array_split(np.argsort(like, kind="stable"), groups)
    kept = [group for group in order if len(group)]
    return np.array([like[group].mean() for group in kept]), np.array([liked[group].mean() for group in kept])
