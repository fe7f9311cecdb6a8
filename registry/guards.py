"""Conditions on a version's lists, and what a condition is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Floats
from recsys.evaluation.bootstrap import compare
from recsys.evaluation.evaluator import POPULARITIES


@dataclass(frozen=True)
class Guard:
    """A condition and how a version stands to it; `interval` is that of `value`, where it decides."""

    name: str
    passed: bool
    value: float
    limit: float
    failure: str
    interval: tuple[float, float] | None = None


def lists_measured(metrics: Mapping[str, float]) -> bool:
    """Whether a version makes lists, and the test set has somebody to make them for."""
    return bool(metrics.get("makes_lists")) and bool(np.isfinite(metrics.get("ndcg_at_10", np.nan)))


def popularity_guards(
    metrics: Mapping[str, float], gains: Floats | None, *, level: float, confidence: float
) -> list[Guard]:
    """`beat_popularity`: nDCG@10 of lists above that of what is popular, and surely so where confidence is asked for.

    A version that makes no lists is not held to it.

    Args:
        gains: the difference by replicate.
        level: of the interval.
        confidence: 0: the interval only stands beside.
    """
    others = [metrics.get(f"baseline_{name}_ndcg_at_10", np.nan) for name in POPULARITIES]
    if not lists_measured(metrics) or not np.isfinite(others).any():
        return []
    value, limit = metrics["ndcg_at_10"], float(np.nanmax(others))
    found = None if gains is None else compare(value - limit, gains, 0.0, np.zeros(len(gains)), level=level)
    passed = value > limit and (not confidence or (found is not None and found.low > 0))
    shown = "" if found is None else f" ({level:.0%} interval of the difference {found.low:+.4f} to {found.high:+.4f})"
    failure = (
        f"its lists' nDCG@10 {value:.4f} is not{' surely' if value > limit else ''} above {limit:.4f} of what is "
        f"popular{shown} (beat_popularity)"
    )
    interval = None if found is None else (limit + found.low, limit + found.high)
    return [Guard("beat_popularity", passed, value, limit, failure, interval)]


def list_drop_guards(
    metrics: Mapping[str, float],
    replicates: Floats | None,
    champion: Mapping[str, float],
    champion_replicates: Floats | None,
    *,
    number: int,
    drop: float | None,
    level: float,
) -> list[Guard]:
    """`max_ndcg_drop`: nDCG@10 of lists not surely this much below the champion's, version `number`.

    Where the champion makes lists, a version that makes none fails.
    """
    name = "max_ndcg_drop"
    if drop is None or not lists_measured(champion):
        return []
    other = champion["ndcg_at_10"]
    if not lists_measured(metrics):
        return [Guard(name, False, 0.0, other - drop, f"it makes no lists, and version {number} does ({name})")]
    value = metrics["ndcg_at_10"]
    passed, interval, shown = value >= other - drop, None, ""
    if replicates is not None and champion_replicates is not None:
        found = compare(value, replicates, other, champion_replicates, level=level)
        if found is not None:
            passed = passed or found.high >= -drop
            interval = other + found.low, other + found.high
            shown = f" ({level:.0%} interval of the difference {found.low:+.4f} to {found.high:+.4f})"
    failure = f"its lists' nDCG@10 {value:.4f} is more than {drop:g} below version {number}'s {other:.4f}{shown}"
    return [Guard(name, passed, value, other - drop, f"{failure} ({name})", interval)]
