"""Which version goes to Production: a pure decision on measured candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRODUCTION = "Production"


@dataclass(frozen=True)
class Candidate:
    """A version and its metrics on the test set that all are compared on.

    `problem` says why it could not be measured; such a version is never promoted.
    """

    number: int
    family: str
    stage: str
    metrics: dict[str, float]
    problem: str | None = None


@dataclass(frozen=True)
class Decision:
    """What was decided: the version to be in Production (None: nobody), the one there before, and why."""

    winner: int | None
    previous: int | None
    reason: str
    refused: dict[int, str]

    @property
    def changes(self) -> bool:
        """Whether another version than before is to be in Production."""
        return self.winner is not None and self.winner != self.previous


def decide(candidates: Sequence[Candidate], *, scale: tuple[float, float], max_rmse: float) -> Decision:
    """Choose the highest test AUC among the candidates that pass the guards; a tie keeps the incumbent.

    Args:
        scale: lowest and highest rating.
        max_rmse: guard: a version whose test RMSE is not below it is refused. In points of a five-point scale, and
            stretched to `scale`.
    """
    limit = max_rmse * (scale[1] - scale[0]) / 4
    refused = {c.number: problem for c in candidates if (problem := _refusal(c, limit))}
    standing = [c for c in candidates if c.number not in refused]
    previous = max((c.number for c in candidates if c.stage == PRODUCTION), default=None)
    if not standing:
        reason = "no version is fit for Production, nothing is changed"
        return Decision(None, previous, reason, refused)
    # The incumbent wins a tie; among newcomers with one AUC the oldest, so that repeating changes nothing.
    best = max(standing, key=lambda c: (c.metrics["auc"], c.number == previous, -c.number))
    incumbent = next((c for c in standing if c.number == previous), None)
    return Decision(best.number, previous, _explain(best, incumbent, previous, refused), refused)


def _refusal(candidate: Candidate, limit: float) -> str | None:
    if candidate.problem:
        return candidate.problem
    if not np.isfinite(candidate.metrics.get("auc", np.nan)):
        return "its AUC is undefined on this test set"
    rmse = candidate.metrics["rmse"]
    return None if rmse < limit else f"its RMSE {rmse:.4f} is not below {limit:g} (max_rmse, stretched to the scale)"


def _explain(best: Candidate, incumbent: Candidate | None, previous: int | None, refused: dict[int, str]) -> str:
    name = f"version {best.number} ({best.family})"
    auc = f"AUC {best.metrics['auc']:.4f}"
    if best.number == previous:
        return f"{name} stays in Production: {auc}, and no other version's is higher"
    if incumbent is not None:
        return (
            f"{name} replaces version {incumbent.number} ({incumbent.family}): {auc} against "
            f"{incumbent.metrics['auc']:.4f}"
        )
    if previous is not None:
        return f"{name} replaces version {previous}, which is refused ({refused[previous]}): {auc}"
    return f"{name} goes to Production: {auc}, the highest, and there was no version before"
