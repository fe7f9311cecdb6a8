"""Which version goes to Production: a pure decision on measured candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from recsys.arrays import Floats
from recsys.evaluation.bootstrap import Comparison, Correction, compare, correct
from recsys.settings import OptionalFloat, Settings
from registry.forward import ForwardMeasures
from registry.guards import Guard, list_drop_guards, lists_measured, popularity_guards

Metric = Literal["auc", "ndcg_at_10"]
LABELS: dict[Metric, str] = {"auc": "AUC", "ndcg_at_10": "nDCG@10"}
PRODUCTION = "Production"
_REPORTED_LEVEL = 0.95


class Policy(Settings):
    """What a version must show to go to Production."""

    metric: Metric = Field(
        "auc", description="what decides: auc, or ndcg_at_10 where the product is the list; the guards hold for both"
    )
    min_gain: float = Field(
        0.0, ge=0, lt=1, description="least gain in the metric over the champion; a tie keeps it anyway"
    )
    confidence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="level at which the interval of the gain, corrected for the number of versions compared, must "
        "exclude zero; 0: it is only reported, at 0.95",
    )
    max_rmse: float = Field(
        1.0, gt=0, description="guard: test RMSE must be below this, on a five-point scale; scaled with the range"
    )
    max_auc_per_user_drop: float = Field(
        0.02,
        ge=0,
        le=1,
        description="guard: per-user AUC may be this much below the champion's, and more where the interval of the "
        "difference does not exclude this much",
    )
    max_forward_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="guard: AUC on the newest ratings, of all and of known users and items, may be this much below the "
        "champion's, and more where the interval of the difference does not exclude this much",
    )
    beat_bias: bool = Field(
        True,
        description="guard: AUC must be above that of the bias baseline, or of popularity where there are no ratings",
    )
    beat_popularity: bool = Field(
        True,
        description="guard: nDCG@10 of a version's lists must be above that of listing what is popular, or have an "
        "interval that reaches above it, and with confidence lies above it; a version without lists is not held to it",
    )
    max_ndcg_drop: OptionalFloat = Field(
        None,
        ge=0,
        le=1,
        description="guard: nDCG@10 of lists may be this much below the champion's, and more where the interval of "
        "the difference does not exclude this much; none: lists are not compared",
    )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A version and how it did on the test set that all are compared on.

    `problem` says why it cannot be chosen, whatever its numbers. `replicates` of its AUC and `user_replicates` of its
    per-user AUC are those of `recsys.evaluation.bootstrap`, so are `list_replicates` of the nDCG@10 of its lists, and
    `list_gains` of how much that is above what is popular. `forward` is what its training measured on its newest rows.
    `metric` is what decides.
    """

    number: int
    family: str
    stage: str
    metrics: dict[str, float]
    problem: str | None = None
    replicates: Floats | None = None
    user_replicates: Floats | None = None
    list_replicates: Floats | None = None
    list_gains: Floats | None = None
    forward: ForwardMeasures | None = None
    metric: Metric = "auc"

    @property
    def value(self) -> float:
        """The metric that decides."""
        return self.metrics[self.metric]

    @property
    def drawn(self) -> Floats | None:
        """The replicates of that metric."""
        return self.replicates if self.metric == "auc" else self.list_replicates

    @property
    def name(self) -> str:
        """For people."""
        return f"version {self.number} ({self.family})"


@dataclass(frozen=True, eq=False)
class Assessment:
    """A candidate, the guards, and its difference to the champion on the same rows where there is a champion.

    `correction` says how sure that difference is, seeing that it is one of many. `problem` says why it was not chosen
    for a reason of its own; None for the winner and for versions that are fit but not better.
    """

    candidate: Candidate
    guards: tuple[Guard, ...] = ()
    comparison: Comparison | None = None
    correction: Correction | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Decision:
    """What was decided: the version to be in Production (None: nobody new), the one there before, and why."""

    winner: int | None
    previous: int | None
    reason: str
    assessments: tuple[Assessment, ...] = ()

    @property
    def certainty(self) -> "Certainty | None":
        """How sure it is that the winner is the better one; None where there is nothing to compare it with."""
        chosen = next((a for a in self.assessments if a.candidate.number == self.winner), None)
        others = [a for a in self.assessments if a is not chosen and a.problem is None]
        if chosen is None:
            return None
        if chosen.comparison is not None and self.previous is not None:
            return Certainty(self.previous, "the champion before", chosen.comparison, chosen.correction)
        if not others:
            return None
        next_best = max(others, key=_rank).candidate
        comparison = _compare(chosen.candidate, next_best, _REPORTED_LEVEL)
        return Certainty(next_best.number, "the next best", comparison, None) if comparison else None

    @property
    def changes(self) -> bool:
        """Whether another version than before is to be in Production."""
        return self.winner is not None and self.winner != self.previous


@dataclass(frozen=True)
class Certainty:
    """The winner against another version: the champion that it replaces, or else the next best."""

    other: int
    role: str
    comparison: Comparison
    correction: Correction | None


def decide(
    candidates: Sequence[Candidate],
    *,
    champion: int | None,
    policy: Policy,
    scale: tuple[float, float],
    test_rows: int,
    implicit: bool = False,
) -> Decision:
    """Choose the highest AUC, or what else decides, on the same test rows among those that pass and show their gain.

    A tie keeps the champion. A champion that is itself unfit is replaced by the best that is fit.

    Args:
        champion: the version in Production, None where there is none.
        scale: lowest and highest rating.
        test_rows: on how many ratings all were measured.
        implicit: there are no ratings: no RMSE is asked for, and popularity is the baseline of AUC.
    """
    rated = None if implicit else scale
    candidates = [replace(candidate, metric=policy.metric) for candidate in candidates]
    holder = next((c for c in candidates if c.number == champion), None)
    # Only a champion that is fit can be compared with: one that learnt from test rows would look too good.
    unfit = _assess(holder, None, policy, rated).problem if holder else "it is gone"
    incumbent = None if unfit else holder
    assessed = tuple(_assess(candidate, incumbent, policy, rated) for candidate in candidates)
    if incumbent is not None:
        assessed = _weigh(assessed, incumbent, policy)
    fit = [a for a in assessed if a.problem is None]
    where = f"on {test_rows:,} test ratings"
    if incumbent is not None:
        return _against(incumbent, assessed, where)
    if not fit:
        return Decision(None, champion, "no version is fit for Production, nothing is changed", assessed)
    best = max(fit, key=_rank).candidate
    measured = f"{LABELS[policy.metric]} {best.value:.4f} {where}"
    if champion is None:
        reason = f"{best.name} goes to Production: {measured}, the highest, and there was no version before"
    else:
        reason = f"{best.name} replaces version {champion}, which is no candidate ({unfit}): {measured}"
    return Decision(best.number, champion, reason, assessed)


def _against(incumbent: Candidate, assessed: tuple[Assessment, ...], where: str) -> Decision:
    value, label = incumbent.value, LABELS[incumbent.metric]
    # A higher one may have been refused; its reason is then worth telling.
    higher = [a for a in assessed if a.candidate.metrics.get(incumbent.metric, 0) > value]
    higher.sort(key=_rank, reverse=True)
    best = next((a for a in higher if a.problem is None), None)
    if best is None:
        reason = f"{incumbent.name} stays in Production: {label} {value:.4f} {where}, "
        if higher:
            other = higher[0].candidate
            reason += f"because {other.name} with {other.value:.4f} is refused: {higher[0].problem}"
        else:
            reason += "because no other version's is higher"
        return Decision(incumbent.number, incumbent.number, reason, assessed)
    winner = best.candidate
    reason = (
        f"{winner.name} replaces {incumbent.name}: {label} {winner.value:.4f} against {value:.4f} {where}, "
        f"{_gain(best, incumbent)}"
    )
    return Decision(winner.number, incumbent.number, reason, assessed)


def _rank(assessment: Assessment) -> tuple[float, int]:
    """By what decides; of equal ones the oldest, so that repeating changes nothing."""
    return assessment.candidate.value, -assessment.candidate.number


def _assess(
    candidate: Candidate, incumbent: Candidate | None, policy: Policy, scale: tuple[float, float] | None
) -> Assessment:
    """How a candidate stands; `scale` is None where there are no ratings."""
    metrics = candidate.metrics
    problem = candidate.problem or _undefined(metrics, policy.metric, scale is not None)
    if problem:
        return Assessment(candidate, problem=problem)
    guards = []
    if scale is not None:
        guards.append(_rmse_guard(metrics["rmse"], policy.max_rmse, (scale[1] - scale[0]) / 4))
    if policy.beat_bias:
        name, said = (
            ("bias", "the bias baseline's") if scale is not None else ("most_popular", "that of what is popular,")
        )
        guards.append(_bias_guard(metrics["auc"], metrics.get(f"baseline_{name}_auc", float("nan")), said))
    if policy.beat_popularity:
        guards += popularity_guards(metrics, candidate.list_gains, level=_level(policy), confidence=policy.confidence)
    comparison = None
    if incumbent is not None and incumbent is not candidate:
        guards += _per_user_guards(candidate, incumbent, policy) + _forward_guards(candidate, incumbent, policy)
        guards += list_drop_guards(
            metrics,
            candidate.list_replicates,
            incumbent.metrics,
            incumbent.list_replicates,
            number=incumbent.number,
            drop=policy.max_ndcg_drop,
            level=_level(policy),
        )
        comparison = _compare(candidate, incumbent, _level(policy))
    failed = [guard.failure for guard in guards if not guard.passed]
    return Assessment(candidate, tuple(guards), comparison, problem="; ".join(failed) or None)


def _weigh(assessed: tuple[Assessment, ...], incumbent: Candidate, policy: Policy) -> tuple[Assessment, ...]:
    """Correct the gains of all that could be chosen for their number, and refuse those that lack evidence."""
    compared = [a for a in assessed if a.problem is None and a.comparison is not None]
    gains = np.array([a.comparison.difference for a in compared if a.comparison])
    replicates = [a.candidate.drawn - incumbent.drawn for a in compared]  # type: ignore[operator]
    corrections = correct(gains, np.array(replicates), level=_level(policy))
    found = {a.candidate.number: correction for a, correction in zip(compared, corrections, strict=True)}
    weighed = [replace(a, correction=found.get(a.candidate.number)) for a in assessed]
    return tuple(
        replace(a, problem=_lacking_evidence(a, incumbent, policy))
        if a.problem is None and a.candidate.value > incumbent.value
        else a
        for a in weighed
    )


def _level(policy: Policy) -> float:
    return policy.confidence or _REPORTED_LEVEL


def _compare(candidate: Candidate, other: Candidate, level: float) -> Comparison | None:
    if candidate.drawn is None or other.drawn is None:
        return None
    return compare(candidate.value, candidate.drawn, other.value, other.drawn, level=level)


def _undefined(metrics: dict[str, float], metric: Metric, rated: bool) -> str | None:
    """All numbers finite and within their range, or no candidate."""
    if not metrics:
        return "it was not measured"
    for name in ("auc", "rmse") if rated else ("auc",):
        value = metrics.get(name, float("nan"))
        if not np.isfinite(value):
            return f"its {name.upper()} is undefined on this test set"
    if metric == "ndcg_at_10" and not lists_measured(metrics):
        return "its lists cannot be compared: it makes none, or nobody likes anything here (metric=ndcg_at_10)"
    for name, value in metrics.items():
        if not np.isfinite(value):
            return f"its {name} is {value}"
    rmse = metrics["rmse"] if rated else 0.0
    if not 0 <= metrics["auc"] <= 1 or rmse < 0:
        return f"its AUC {metrics['auc']:g}{f' or RMSE {rmse:g}' if rated else ''} is out of range"
    return None


def _rmse_guard(value: float, most: float, point: float) -> Guard:
    """Refuse an error that is not below `most` points of a five-point scale, of which one is `point` here."""
    limit = most * point
    same = "" if point == 1 else f": it is {value / point:.2f} on a five-point one"
    failure = f"its RMSE {value:.4f} is not below {limit:g} (max_rmse, stretched to the scale{same})"
    return Guard("max_rmse", value < limit, value, limit, failure)


def _bias_guard(value: float, limit: float, whose: str) -> Guard:
    failure = f"its AUC {value:.4f} is not above {whose} {limit:.4f} (beat_bias)"
    return Guard("beat_bias", value > limit, value, limit, failure)


def _per_user_guards(candidate: Candidate, incumbent: Candidate, policy: Policy) -> list[Guard]:
    """Refuse what is surely worse for users: by more than the drop as measured, and by all of its interval."""
    values = candidate.metrics.get("auc_per_user"), incumbent.metrics.get("auc_per_user")
    replicates = candidate.user_replicates, incumbent.user_replicates
    guard = _drop_guard("max_auc_per_user_drop", "per-user AUC", values, replicates, incumbent, policy)
    return [guard] if guard else []  # none: no user has both classes


def _forward_guards(candidate: Candidate, incumbent: Candidate, policy: Policy) -> list[Guard]:
    """Likewise what is surely worse on the newest ratings; none where the two were measured on different ones."""
    mine, other = candidate.forward, incumbent.forward
    if mine is None or other is None or mine.digest != other.digest:
        return []
    found = []
    for rows, key, said in (
        ("", "forward_auc", "forward AUC"),
        (" of known", "forward_warm_auc", "forward AUC of known users and items"),
    ):
        values = mine.metrics.get(key), other.metrics.get(key)
        replicates = mine.replicates.get(key), other.replicates.get(key)
        guard = _drop_guard("max_forward_drop", said, values, replicates, incumbent, policy)
        found += [replace(guard, name=guard.name + rows)] if guard else []
    return found


def _drop_guard(
    name: str,
    said: str,
    values: tuple[float | None, float | None],
    replicates: tuple[Floats | None, Floats | None],
    incumbent: Candidate,
    policy: Policy,
) -> Guard | None:
    """Whether the first value is not surely more below the second than the setting `name` allows; None without both."""
    (value, other), (own, others) = values, replicates
    if value is None or other is None:
        return None
    drop: float = getattr(policy, name)
    passed, interval, shown = value >= other - drop, None, ""
    found = None if own is None or others is None else compare(value, own, other, others, level=_level(policy))
    if found is not None:
        passed = passed or found.high >= -drop
        interval = other + found.low, other + found.high
        shown = f" ({found.level:.0%} interval of the difference {found.low:+.4f} to {found.high:+.4f})"
    failure = f"its {said} {value:.4f} is more than {drop:g} below version {incumbent.number}'s {other:.4f}{shown}"
    return Guard(name, passed, value, other - drop, f"{failure} ({name})", interval)


def _lacking_evidence(better: Assessment, incumbent: Candidate, policy: Policy) -> str | None:
    """Why a higher value is not enough; None where it is."""
    gain = better.candidate.value - incumbent.value
    if gain < policy.min_gain:
        return f"its gain of {_gain(better, incumbent)} is below min_gain={policy.min_gain:g}"
    if policy.confidence and (better.correction is None or better.correction.low <= 0):
        return f"its gain of {_gain(better, incumbent)} does not exclude zero at confidence={policy.confidence:g}"
    return None


def _gain(better: Assessment, incumbent: Candidate) -> str:
    gain = better.candidate.value - incumbent.value
    comparison = better.comparison
    if comparison is None:
        return f"{gain:+.4f} (no interval: too few users)"
    interval = f"{comparison.level:.0%} interval {comparison.low:+.4f} to {comparison.high:+.4f}"
    correction = better.correction
    if correction is not None and correction.compared > 1:
        interval += f", corrected for {correction.compared} compared {correction.low:+.4f} to {correction.high:+.4f}"
    return f"{gain:+.4f} ({interval})"
