"""The record of decisions: what a promotion, a rollback or a repair leaves on its run, and says on the terminal."""

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset
from recsys.evaluation import PROTOCOL
from recsys.settings import Settings
from registry.forward import ForwardMeasures
from registry.guards import Guard
from registry.policy import LABELS, PRODUCTION, Assessment, Decision
from steps.support.runs import made_by

if TYPE_CHECKING:
    import pandas as pd

    from recsys.tracking.runs import Run

UNFINISHED = "unfinished"
_PREFIX = "promotion."
_MEASURES = {"rmse": "RMSE", "mae": "MAE", "auc": "AUC", "auc_per_user": "per-user AUC", "ndcg_at_10": "nDCG@10"}
_FORWARD = {"forward_auc": "forward AUC", "forward_warm_auc": "of known"}
_DONE = {
    "promoted": "promote",
    "kept": "promote, kept",
    "none": "promote",
    "dry_run": "promote, dry run",
    "rolled_back": "rollback",
    "repaired": "repair",
    "trial": "promote, on trial",
}
_MOST_NOTES = 10
_MANY_PROMOTIONS = 5  # so many records are set by luck in a hundred equal versions: the sum of 1 / n
_OWN_LEVEL = 0.95
_NOT_COMPARED = {"folder", "model_name", "dataset"}


class Record:
    """Writes a decision on its run: first that it is about to be carried out, then what came of it."""

    def __init__(self, run: "Run", parameters: Settings) -> None:
        self.run = run
        self.model_name: str = parameters.model_name  # type: ignore[attr-defined]
        self.policy = parameters.model_dump(exclude=_NOT_COMPARED)

    def intend(self, decision: Decision) -> None:
        """Say what is about to change, so that the history knows of it even if the process dies over it."""
        self._tag(decision, UNFINISHED)

    def decide_on(self, test_digest: str) -> None:
        """Say by which test set is decided."""
        self.run.set_tags({f"{_PREFIX}test_digest": test_digest})

    def finish(self, decision: Decision, outcome: str, dataset: Dataset | None) -> None:
        """Write decision.json, and where versions were compared the table and the plot, and print them."""
        earlier = 0 if dataset is None else self._earlier_promotions(dataset.test_digest)
        self.run.log_json(self._content(decision, outcome, dataset, earlier), "decision.json")
        self._tag(decision, outcome)
        whom = "nobody" if decision.winner is None else f"version {decision.winner}"
        self.run.describe(decision.reason, f"{_DONE.get(outcome, outcome)}: {whom}")
        if dataset is None:
            return
        table = comparison_table(decision, outcome == "promoted")
        self.run.log_table(table, "comparison.csv")
        self._log_plot(decision)
        print(f"\n{self.model_name} on the {len(dataset.test):,} test ratings of dataset {dataset.digest}:\n")
        print(table.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
        print(f"\n{'dry run, nothing is moved: ' if outcome == 'dry_run' else ''}{decision.reason}")
        _print_certainty(decision)
        _print_notes(decision)
        _print_forward_notes(decision)
        if earlier >= _MANY_PROMOTIONS:
            print(
                f"note: {earlier} promotions were decided on this test set before: among a hundred versions that are "
                f"equal, luck alone makes {_MANY_PROMOTIONS}; promote with -P confidence=0.95, or on newer ratings"
            )

    def _earlier_promotions(self, test_digest: str) -> int:
        """How many promotions were decided on a test set before this one."""
        from recsys.tracking.retry import retry_mlflow

        wanted = {"outcome": "promoted", "test_digest": test_digest}
        found = [record for record in retry_mlflow(find_decisions)(self.model_name) if wanted.items() <= record.items()]
        return sum(record["run_id"] != self.run.run_id for record in found)

    def _tag(self, decision: Decision, outcome: str) -> None:
        tags = {
            "model": self.model_name,
            "outcome": outcome,
            "from": "" if decision.previous is None else str(decision.previous),
            "to": "" if decision.winner is None else str(decision.winner),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        self.run.set_tags({_PREFIX + key: value for key, value in tags.items()} | {"decision": decision.reason})

    def _content(self, decision: Decision, outcome: str, dataset: Dataset | None, earlier: int) -> dict[str, Any]:
        provenance = made_by()
        compared = None
        if dataset is not None:
            compared = {
                "digest": dataset.digest,
                "test_digest": dataset.test_digest,
                "test_rows": len(dataset.test),
                "measured": PROTOCOL,
                "earlier_promotions": earlier,
            }
        return {
            "model": self.model_name,
            "outcome": outcome,
            "from": decision.previous,
            "to": decision.winner,
            "why": decision.reason,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": provenance["author"],
            "commit": provenance["git_commit"],
            "dirty": provenance["git_dirty"] == "true",
            "dataset": compared,
            "policy": self.policy,
            "certainty": asdict(decision.certainty) if decision.certainty else None,
            "candidates": [_describe(assessment, dataset) for assessment in decision.assessments],
        }

    def _log_plot(self, decision: Decision) -> None:
        from recsys.evaluation import plots

        measured = [a for a in decision.assessments if a.candidate.metric in a.candidate.metrics]
        if not measured:
            return
        numbers = [a.candidate.number for a in measured]
        values, metric = [a.candidate.value for a in measured], measured[0].candidate.metric
        levels = [a.comparison.level for a in measured if a.comparison]
        figure = plots.comparison(
            [f"{a.candidate.number} {a.candidate.family}" for a in measured],
            values,
            [_drawn_interval(a) if levels else _own_interval(a) for a in measured],
            numbers.index(decision.winner) if decision.winner in numbers else None,
            numbers.index(decision.previous) if levels and decision.previous in numbers else None,
            levels[0] if levels else _OWN_LEVEL,
            LABELS[metric],
        )
        self.run.log_figures({"comparison.png": figure})
        self.run.log_metrics({"versions": len(decision.assessments), f"best_{metric}": max(values)})


def _drawn_interval(assessment: Assessment) -> tuple[float, float] | None:
    """Of the difference to the champion."""
    comparison = assessment.comparison
    return (comparison.low, comparison.high) if comparison else None


def _own_interval(assessment: Assessment) -> tuple[float, float] | None:
    """Of what decides, of a version alone, where there is no champion that it is compared with."""
    import numpy as np

    replicates = assessment.candidate.drawn
    if replicates is None or np.isnan(replicates).all():
        return None
    low, high = np.nanquantile(replicates, [(1 - _OWN_LEVEL) / 2, (1 + _OWN_LEVEL) / 2])
    return float(low), float(high)


def find_decisions(model_name: str) -> list[dict[str, str]]:
    """The records of a model, the oldest first: outcome, from, to, at, decision, author, run_id, parent."""
    from recsys.tracking import runs

    found = []
    for run_id, tags in runs.find_runs({f"{_PREFIX}model": model_name}):
        record = {key.removeprefix(_PREFIX): value for key, value in tags.items() if key.startswith(_PREFIX)}
        told = {"decision": tags["decision"], "author": tags["author"], "run_id": run_id}
        found.append(record | told | {"parent": tags.get("mlflow.parentRunId", "")})
    return sorted(found, key=lambda record: record["at"])


def _describe(assessment: Assessment, dataset: Dataset | None) -> dict[str, Any]:
    candidate = assessment.candidate
    return {
        "version": candidate.number,
        "family": candidate.family,
        "stage_before": candidate.stage,
        "metrics": candidate.metrics,
        "forward": _of_forward(candidate.forward) if candidate.forward else None,
        "test_digest": dataset.test_digest if dataset and candidate.metrics else None,
        "difference_to_champion": asdict(assessment.comparison) if assessment.comparison else None,
        "corrected_for_many": asdict(assessment.correction) if assessment.correction else None,
        "guards": {guard.name: _of_guard(guard) for guard in assessment.guards},
        "problem": assessment.problem,
    }


def _of_forward(forward: ForwardMeasures) -> dict[str, Any]:
    return {"digest": forward.digest, "metrics": dict(forward.metrics)}


def _of_guard(guard: Guard) -> dict[str, Any]:
    found: dict[str, Any] = {"passed": guard.passed, "value": guard.value, "limit": guard.limit}
    return found | ({"interval": guard.interval} if guard.interval else {})


def comparison_table(decision: Decision, moved: bool) -> "pd.DataFrame":
    """A row a version: its measures, how it compares to the champion, and its stage, after the move if there is one."""
    import pandas as pd

    rows = []
    for assessment in decision.assessments:
        candidate, comparison = assessment.candidate, assessment.comparison
        stage = candidate.stage
        if moved and decision.winner is not None:
            was_first = stage == PRODUCTION
            stage = PRODUCTION if candidate.number == decision.winner else "Archived" if was_first else stage
        row: dict[str, object] = {"version": candidate.number, "family": candidate.family}
        # Not None, which would be printed where no version has a number, as without ratings.
        row |= {label: candidate.metrics.get(key, math.nan) for key, label in _MEASURES.items()}
        if any(a.candidate.forward for a in decision.assessments):
            forward = candidate.forward.metrics if candidate.forward else {}
            row |= {label: forward.get(key, math.nan) for key, label in _FORWARD.items()}
        if any(a.comparison for a in decision.assessments):
            level = f"{comparison.level:.0%} interval" if comparison else "95% interval"
            row["to champion"] = f"{comparison.difference:+.4f}" if comparison else "-"
            row[level] = f"{comparison.low:+.4f} to {comparison.high:+.4f}" if comparison else "-"
        if any(a.correction and a.correction.compared > 1 for a in decision.assessments):
            correction = assessment.correction
            row["corrected interval"] = f"{correction.low:+.4f} to {correction.high:+.4f}" if correction else "-"
            row["p corrected"] = correction.p_value if correction else None
        rows.append(row | {"refused for": _refused_for(assessment), "stage": stage})
    return pd.DataFrame(rows)


def _refused_for(assessment: Assessment) -> str:
    failed = [guard.name for guard in assessment.guards if not guard.passed]
    if not assessment.problem:
        return "-"
    return ", ".join(failed) or ("evidence" if assessment.comparison else "see below")


def _print_certainty(decision: Decision) -> None:
    certainty = decision.certainty
    if certainty is None:
        return
    found, correction = certainty.comparison, certainty.correction
    said = f"p {found.p_value:.2g}"
    if correction and correction.compared > 1:
        said += f", corrected for {correction.compared} compared {correction.p_value:.2g}"
    print(
        f"how sure: version {decision.winner} is ahead of version {certainty.other}, {certainty.role}, in "
        f"{found.ahead:.0%} of the draws of users ({said})"
    )


def _print_notes(decision: Decision) -> None:
    refused = [a for a in decision.assessments if a.problem]
    for assessment in refused[:_MOST_NOTES]:
        print(f"note: version {assessment.candidate.number} is no candidate: {assessment.problem}")
    if len(refused) > _MOST_NOTES:
        print(f"note: {len(refused) - _MOST_NOTES} more are no candidates; the run's decision.json says why")


def _print_forward_notes(decision: Decision) -> None:
    """Say which versions the guard of forward measures could not compare with the champion before."""
    champion = next((a.candidate for a in decision.assessments if a.candidate.number == decision.previous), None)
    if champion is None or champion.forward is None:
        return
    others = [a.candidate for a in decision.assessments if a.candidate is not champion and a.problem is None]
    apart = [c.number for c in others if c.forward is None or c.forward.digest != champion.forward.digest]
    if apart:
        named = ", ".join(str(number) for number in apart[:_MOST_NOTES]) + (" …" if len(apart) > _MOST_NOTES else "")
        print(
            f"note: not measured on the newest ratings that version {champion.number} was measured on, and so not "
            f"compared by max_forward_drop: {named}"
        )
