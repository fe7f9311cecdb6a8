"""Which version goes to Production: a pure decision on measured candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from recsys.arrays import Floats
from recsys.evaluation.bootstrap import Comparison, compare
from recsys.settings import Settings

PRODUCTION = "Production"
_REPORTED_LEVEL = 0.95


class Policy(Settings):
    """What a version must show to go to Production."""

    min_gain: float = Field(0.0, ge=0, lt=1, description="least gain in AUC over the champion; a tie keeps it anyway")
    confidence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="level at which the interval of the gain must exclude zero; 0: it is only reported, at 0.95",
    )
    max_rmse: float = Field(
        1.0, gt=0, description="guard: test RMSE must be below this, on a five-point scale; scaled with the range"
    )
    max_auc_per_user_drop: float = Field(
        0.02, ge=0, le=1, description="guard: per-user AUC may be this much below the champion's"
    )
    beat_bias: bool = Field(True, description="guard: AUC must be above that of the bias baseline")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A version and how it did on the test set that all are compared on.

    `problem` says why it cannot be chosen, whatever its numbers. `replicates` are those of `recsys.bootstrap`.
    """

    number: int
    family: str
    stage: str
    metrics: dict[str, float]
    problem: str | None = None
    replicates: Floats | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"version {self.number} ({self.family})"


@dataclass(frozen=True)
class Guard:
    """A condition and how a version stands to it."""

    name: str
    passed: bool
    value: float
    limit: float
    failure: str


@dataclass(frozen=True, eq=False)
class Assessment:
    """A candidate, the guards, and its difference to the champion on the same rows where there is a champion.

    `problem` says why it was not chosen for a reason of its own; None for the winner and for versions that are fit
    but not better.
    """

    candidate: Candidate
    guards: tuple[Guard, ...] = ()
    comparison: Comparison | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Decision:
    """What was decided: the version to be in Production (None: nobody new), the one there before, and why."""

    winner: int | None
    previous: int | None
    reason: str
    assessments: tuple[Assessment, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether another version than before is to be in Production."""
        return self.winner is not None and self.winner != self.previous


def decide(
    candidates: Sequence[Candidate],
    *,
    champion: int | None,
    policy: Policy,
    scale: tuple[float, float],
    test_rows: int,
) -> Decision:
    """Choose the highest AUC on the same test rows among those that pass the guards and show their gain.

    A tie keeps the champion. A champion that is itself unfit is replaced by the best that is fit.

    Args:
        champion: the version in Production, None where there is none.
        scale: lowest and highest rating.
        test_rows: on how many ratings all were measured.
    """
    holder = next((c for c in candidates if c.number == champion), None)
    # Only a champion that is fit can be compared with: one that learnt from test rows would look too good.
    unfit = _assess(holder, None, policy, scale).problem if holder else "it is gone"
    incumbent = None if unfit else holder
    assessed = tuple(_assess(candidate, incumbent, policy, scale) for candidate in candidates)
    fit = [a for a in assessed if a.problem is None]
    where = f"on {test_rows:,} test ratings"
    if incumbent is not None:
        return _against(incumbent, assessed, where)
    if not fit:
        return Decision(None, champion, "no version is fit for Production, nothing is changed", assessed)
    best = max(fit, key=_rank).candidate
    measured = f"AUC {best.metrics['auc']:.4f} {where}"
    if champion is None:
        reason = f"{best.name} goes to Production: {measured}, the highest, and there was no version before"
    else:
        reason = f"{best.name} replaces version {champion}, which is no candidate ({unfit}): {measured}"
    return Decision(best.number, champion, reason, assessed)


def _against(incumbent: Candidate, assessed: tuple[Assessment, ...], where: str) -> Decision:
    auc = incumbent.metrics["auc"]
    # One with a higher AUC may have been refused; its reason is then worth telling.
    higher = sorted((a for a in assessed if a.candidate.metrics.get("auc", 0) > auc), key=_rank, reverse=True)
    best = next((a for a in higher if a.problem is None), None)
    if best is None:
        reason = f"{incumbent.name} stays in Production: AUC {auc:.4f} {where}, "
        if higher:
            other = higher[0].candidate
            reason += f"because {other.name} with {other.metrics['auc']:.4f} is refused: {higher[0].problem}"
        else:
            reason += "because no other version's is higher"
        return Decision(incumbent.number, incumbent.number, reason, assessed)
    winner = best.candidate
    reason = (
        f"{winner.name} replaces {incumbent.name}: AUC {winner.metrics['auc']:.4f} against {auc:.4f} {where}, "
        f"{_gain(best, incumbent)}"
    )
    return Decision(winner.number, incumbent.number, reason, assessed)


def _rank(assessment: Assessment) -> tuple[float, int]:
    """By AUC; of those with one AUC the oldest, so that repeating changes nothing."""
    return assessment.candidate.metrics["auc"], -assessment.candidate.number


def _assess(
    candidate: Candidate, incumbent: Candidate | None, policy: Policy, scale: tuple[float, float]
) -> Assessment:
    metrics = candidate.metrics
    problem = candidate.problem or _undefined(metrics)
    if problem:
        return Assessment(candidate, problem=problem)
    guards = [_rmse_guard(metrics["rmse"], policy.max_rmse * (scale[1] - scale[0]) / 4)]
    if policy.beat_bias:
        guards.append(_bias_guard(metrics["auc"], metrics.get("baseline_bias_auc", float("nan"))))
    comparison = None
    if incumbent is not None and incumbent is not candidate:
        guards += _per_user_guards(metrics, incumbent, policy.max_auc_per_user_drop)
        if candidate.replicates is not None and incumbent.replicates is not None:
            level = policy.confidence or _REPORTED_LEVEL
            aucs = metrics["auc"], incumbent.metrics["auc"]
            comparison = compare(aucs[0], candidate.replicates, aucs[1], incumbent.replicates, level=level)
    assessment = Assessment(candidate, tuple(guards), comparison)
    failed = [guard.failure for guard in guards if not guard.passed]
    if incumbent is not None and metrics["auc"] > incumbent.metrics["auc"]:
        failed += _lacking_evidence(assessment, incumbent, policy)
    return replace(assessment, problem="; ".join(failed) or None)


def _undefined(metrics: dict[str, float]) -> str | None:
    """All numbers finite and within their range, or no candidate."""
    if not metrics:
        return "it was not measured"
    for name in ("auc", "rmse"):
        value = metrics.get(name, float("nan"))
        if not np.isfinite(value):
            return f"its {name.upper()} is undefined on this test set"
    for name, value in metrics.items():
        if not np.isfinite(value):
            return f"its {name} is {value}"
    if not 0 <= metrics["auc"] <= 1 or metrics["rmse"] < 0:
        return f"its AUC {metrics['auc']:g} or RMSE {metrics['rmse']:g} is out of range"
    return None


def _rmse_guard(value: float, limit: float) -> Guard:
    failure = f"its RMSE {value:.4f} is not below {limit:g} (max_rmse, stretched to the scale)"
    return Guard("max_rmse", value < limit, value, limit, failure)


def _bias_guard(value: float, limit: float) -> Guard:
    failure = f"its AUC {value:.4f} is not above the bias baseline's {limit:.4f} (beat_bias)"
    return Guard("beat_bias", value > limit, value, limit, failure)


def _per_user_guards(metrics: dict[str, float], incumbent: Candidate, drop: float) -> list[Guard]:
    if "auc_per_user" not in metrics or "auc_per_user" not in incumbent.metrics:
        return []  # no user has both classes: it exists for nobody
    value, other = metrics["auc_per_user"], incumbent.metrics["auc_per_user"]
    failure = (
        f"its per-user AUC {value:.4f} is more than {drop:g} below version {incumbent.number}'s {other:.4f} "
        "(max_auc_per_user_drop)"
    )
    return [Guard("max_auc_per_user_drop", value >= other - drop, value, other - drop, failure)]


def _lacking_evidence(better: Assessment, incumbent: Candidate, policy: Policy) -> list[str]:
    """Why a higher AUC is not enough."""
    gain = better.candidate.metrics["auc"] - incumbent.metrics["auc"]
    if gain < policy.min_gain:
        return [f"its gain of {_gain(better, incumbent)} is below min_gain={policy.min_gain:g}"]
    if policy.confidence and (better.comparison is None or better.comparison.low <= 0):
        return [f"its gain of {_gain(better, incumbent)} does not exclude zero at confidence={policy.confidence:g}"]
    return []


def _gain(better: Assessment, incumbent: Candidate) -> str:
    gain = better.candidate.metrics["auc"] - incumbent.metrics["auc"]
    comparison = better.comparison
    if comparison is None:
        return f"{gain:+.4f} (no interval: too few users)"
    return f"{gain:+.4f} ({comparison.level:.0%} interval {comparison.low:+.4f} to {comparison.high:+.4f})"
