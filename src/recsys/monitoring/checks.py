"""Changes that are looked for in every window, with a false alarm rate that holds however often one looks.

The k-th look may spend alpha / (k (k + 1)) of the rate, which sums to alpha over all looks, and shares it among its
tests (Bonferroni): whatever depends on what, a version whose data does not change is alarmed for with a probability of
at most alpha in its life. An alarm needs a change that counts, too: one beyond the tolerance of its check.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from recsys.arrays import Codes, Flags, Floats
from recsys.monitoring.estimates import (
    FEWEST_USERS,
    Difference,
    Estimate,
    auc_over_users,
    compare,
    exactly,
    mean_over_users,
)
from recsys.monitoring.expected import expected_auc
from recsys.monitoring.rated import Rated

FEWEST_ROWS = 200
ALPHA = 0.05
_CRITICAL = 3.0  # tolerances
_LEAST_P = 1e-300

Severity = Literal["none", "notice", "warning", "critical"]


@dataclass(frozen=True, eq=False)
class Window:
    """What is judged: the ratings that count once, and what is true of all events of the window."""

    rated: Rated
    like_threshold: float  # that the version learnt
    scale: tuple[float, float]
    repeated: Flags  # (n,) of all events
    impossible: Flags  # (n,) of all events: their moment cannot be
    event_users: Codes  # (n,)


@dataclass(frozen=True)
class Check:
    """A change that is looked for."""

    name: str
    says: str  # a sentence; {value}, {reference}, {difference}
    tolerance: float
    rises: bool | None  # True: only a rise counts, False: only a fall
    harms: bool  # else it is told as a notice: the population moved, and nothing is wrong yet
    follows_from: tuple[str, ...]  # changes that explain this one


CHECKS = (
    Check("rating_level", "ratings are {value:.2f} on average, {reference:.2f} before", 0.025, None, True, ()),
    Check("like_threshold", "{difference:+.1%} of the ratings count as likes that did not before, or the other way",
          0.05, None, True, ()),
    Check("new_users", "{value:.1%} of the ratings are by users that the version does not know, {reference:.1%} before",
          0.05, True, True, ()),
    Check("new_items", "{value:.1%} of the ratings are of items that the version does not know, {reference:.1%} before",
          0.05, True, True, ()),
    Check("duplicates", "{value:.1%} of the events were sent before", 0.02, True, True, ()),
    Check("clock", "{value:.1%} of the events happened in the future, or before the list that they answer",
          0.02, True, True, ()),
    Check("rating_error", "ratings are {difference:+.2f} from what is expected", 0.025, None, True, ("rating_level",)),
    Check("like_share", "likes are {difference:+.1%} from what is expected", 0.05, None, True,
          ("like_threshold", "rating_level", "rating_error")),
    Check("error_size", "squared errors are {difference:+.2f} from what is expected", 0.1, True, True,
          ("rating_level", "rating_error")),
    Check("ranking", "the AUC is {difference:+.3f} from what is expected", 0.02, False, True,
          ("like_threshold", "rating_level", "rating_error", "error_size")),
    Check("item_popularity", "rated items had {value:.2f} ratings (log 2), {reference:.2f} before", 0.25, None, False,
          ("new_items",)),
    Check("user_activity", "users who rate had {value:.2f} ratings (log 2), {reference:.2f} before", 0.25, None, False,
          ("new_users",)),
)  # fmt: skip
"""Tolerances of rating_level and rating_error are shares of the scale's range, that of error_size of the variance."""


@dataclass(frozen=True)
class Finding:
    """What one check found. `score` is above 1 for an alarm: the lesser of evidence and change, each over its limit."""

    name: str
    value: float
    reference: float
    difference: float
    error: float
    p_value: float
    level: float
    tolerance: float
    score: float
    severity: Severity
    sentence: str
    follows_from: tuple[str, ...]  # alarms of the same window that explain this one
    problem: str  # why it could not be judged

    @property
    def alarms(self) -> bool:
        """Whether there is an alarm."""
        return self.severity != "none"


def level_of(look: int, alpha: float = ALPHA, tests: int = len(CHECKS)) -> float:
    """The p-value below which one test of the look, counted from 1, alarms."""
    return alpha / (look * (look + 1) * tests)


def assess(window: Window, reference: Rated | None, look: int, alpha: float = ALPHA) -> list[Finding]:
    """Judge a window by all checks.

    Args:
        reference: ratings of the champion's own data; None where it is gone: what needs it is told as a problem.
        look: how often this version has been judged, this time included.
    """
    level = level_of(look, alpha)
    found = [_judge(check, window, reference, level) for check in CHECKS]
    alarmed = {finding.name for finding in found if finding.alarms}
    causes = {check.name: tuple(name for name in check.follows_from if name in alarmed) for check in CHECKS}
    return [Finding(**{**finding.__dict__, "follows_from": causes[finding.name]}) for finding in found]


def headline(findings: Sequence[Finding]) -> list[Finding]:
    """The alarms that no other explains, the worst first."""
    order: dict[Severity, int] = {"critical": 0, "warning": 1, "notice": 2, "none": 3}
    causes = [finding for finding in findings if finding.alarms and not finding.follows_from]
    return sorted(causes, key=lambda finding: (order[finding.severity], -finding.score))


def _judge(check: Check, window: Window, reference: Rated | None, level: float) -> Finding:
    unit = _unit(check.name, window)
    nothing = Estimate(float("nan"), float("nan"), 0, 0)
    now, before, problem = nothing, nothing, ""
    try:
        now, before = _measure(check.name, window, reference)
    except _MissingError as error:
        problem = str(error)
    if not problem and (now.rows < FEWEST_ROWS or now.users < FEWEST_USERS):
        problem = (
            f"{now.rows:,} rows of {now.users:,} users are too few to judge; {FEWEST_ROWS} of {FEWEST_USERS} are needed"
        )
    tolerance = check.tolerance * unit
    change = compare(now, before) if not problem else Difference(float("nan"), float("nan"), 1.0)
    wrong_way = check.rises is not None and (change.value > 0) != check.rises
    evidence = np.log(max(change.p_value, _LEAST_P)) / np.log(level)
    size = 0.0 if problem or wrong_way else abs(change.value) / tolerance
    score = float(min(evidence, size)) if not problem else 0.0
    severity: Severity = "none"
    if score > 1:
        severity = "notice" if not check.harms else "critical" if size > _CRITICAL else "warning"
    sentence = problem or check.says.format(value=now.value, reference=before.value, difference=change.value)
    return Finding(
        check.name, now.value, before.value, change.value, change.error, change.p_value, level, tolerance, score,
        severity, sentence, (), problem,
    )  # fmt: skip


class _MissingError(Exception):
    """What a check needs is not there."""


def _unit(name: str, window: Window) -> float:
    if name in ("rating_level", "rating_error"):
        return window.scale[1] - window.scale[0]
    if name == "error_size":
        spread = window.rated.spread[np.isfinite(window.rated.spread)]
        return float(np.mean(np.square(spread))) if len(spread) else 1.0
    return 1.0


def _mean(of: Callable[[Rated], Floats], known: bool = True) -> Callable[[Rated], Estimate]:
    """The mean of something, of known users and items or of all."""

    def measure(rated: Rated) -> Estimate:
        rows = rated.known if known else rated
        return mean_over_users(of(rows), rows.users)

    return measure


def _squares(rows: Rated) -> Floats:
    """Squared errors, less their mean error, beyond what was expected."""
    if np.isnan(rows.spread).any():
        raise _MissingError("the version says nothing of the spread of ratings, and its data is gone")
    mean = rows.errors.mean() if len(rows) else 0.0
    return np.asarray(np.square(rows.errors - mean) - np.square(rows.spread), np.float64)


def _ranking(rated: Rated) -> Estimate:
    """The realised AUC less the expected one."""
    rows = rated.known
    auc = auc_over_users(rows.like, rows.liked, rows.users)
    if len(rows) and np.isnan(auc.value):
        raise _MissingError("all ratings are likes, or none is")
    return Estimate(auc.value - expected_auc(rows.like), auc.error, auc.rows, auc.users)


_COMPARED: Mapping[str, Callable[[Rated], Estimate]] = {
    "rating_level": _mean(lambda rows: rows.ratings, known=False),
    "new_users": _mean(lambda rows: (rows.user_counts == 0).astype(np.float64), known=False),
    "new_items": _mean(lambda rows: (rows.item_counts == 0).astype(np.float64), known=False),
    "rating_error": _mean(lambda rows: rows.errors),
    "like_share": _mean(lambda rows: rows.liked - rows.like),
    "error_size": _mean(_squares),
    "ranking": _ranking,
    "item_popularity": _mean(lambda rows: np.log2(rows.item_counts)),
    "user_activity": _mean(lambda rows: np.log2(rows.user_counts)),
}
"""What is measured in the window and in the reference alike; raises where something is missing."""


@lru_cache(maxsize=64)  # it is the same for every window
def _before(name: str, reference: Rated) -> Estimate:
    return _COMPARED[name](reference)


def _threshold(window: Window) -> Estimate:
    rows = window.rated
    return mean_over_users(rows.liked.astype(np.float64) - (rows.ratings >= window.like_threshold), rows.users)


def _share(of: Callable[[Window], Flags]) -> Callable[[Window], Estimate]:
    return lambda window: mean_over_users(of(window).astype(np.float64), window.event_users)


_ABSOLUTE: Mapping[str, Callable[[Window], Estimate]] = {
    "like_threshold": _threshold,
    "duplicates": _share(lambda window: window.repeated),
    "clock": _share(lambda window: window.impossible),
}
"""What is 0 where nothing is wrong."""


def _measure(name: str, window: Window, reference: Rated | None) -> tuple[Estimate, Estimate]:
    if name in _ABSOLUTE:
        return _ABSOLUTE[name](window), exactly(0.0)
    if reference is None:
        raise _MissingError("the data that the version learnt from is gone, so there is nothing to compare with")
    return _COMPARED[name](window.rated), _before(name, reference)
