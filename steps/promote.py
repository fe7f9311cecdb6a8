"""Promote: all versions compared on one test set, the best moved to Production."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from recsys import dataset as datasets
from recsys.dataset import Dataset
from recsys.errors import InputError
from steps.evaluate import measure
from steps.parameters import PromoteParameters
from steps.prepare import prepared_folder
from steps.runs import open_run
from steps.shell import run_step

if TYPE_CHECKING:
    import pandas as pd

    from recsys.tracking import Run
    from registry.promotion import Candidate, Decision
    from registry.versions import Version

_MEASURES = {"rmse": "RMSE", "mae": "MAE", "auc": "AUC", "auc_per_user": "per-user AUC"}


def promote(parameters: PromoteParameters, dataset: Dataset | None = None) -> "Decision":
    """Compare all versions by AUC on the same test set, those that lack it evaluated first, and promote the best."""
    from registry import promotion, versions

    with open_run("promote") as run:
        run.log_parameters(parameters)
        versions.find_or_raise_version(parameters.model_name)
        dataset = dataset or _dataset(parameters.dataset)
        run.log_dataset(dataset, "test")
        run.set_tags({"data_version": dataset.digest})
        found = versions.list_versions(parameters.model_name)
        candidates = [_candidate(version, dataset) for version in found]
        decision = promotion.decide(candidates, scale=dataset.scale, max_rmse=parameters.max_rmse)
        if decision.winner is not None:
            versions.promote_version(next(v for v in found if v.number == decision.winner))
        table = _table(candidates, decision)
        _record(run, candidates, decision, table, dataset)
    print(f"\n{parameters.model_name} on the {len(dataset.test):,} test ratings of dataset {dataset.digest}:\n")
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    print(f"\n{decision.reason}")
    for number, problem in decision.refused.items():
        print(f"note: version {number} is no candidate: {problem}")
    return decision


def _dataset(digest: str) -> Dataset:
    folder = prepared_folder()
    return datasets.newest_dataset(folder) if digest == "newest" else datasets.load_dataset(digest, folder)


def _candidate(version: "Version", dataset: Dataset) -> "Candidate":
    from registry.promotion import Candidate

    metrics, problem = version.metrics_on(dataset.test_digest), None
    if metrics is None:
        try:
            with open_run(f"evaluate version {version.number}") as run:
                metrics = measure(version, dataset, run).metrics_on(dataset.test_digest)
        except InputError as error:
            problem = str(error)
    return Candidate(version.number, version.family or "unknown", version.stage, metrics or {}, problem)


def _table(candidates: Sequence["Candidate"], decision: "Decision") -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for candidate in candidates:
        stage = candidate.stage
        if decision.winner is not None:
            was_first = stage == "Production"
            stage = "Production" if candidate.number == decision.winner else "Archived" if was_first else stage
        measures = {label: candidate.metrics.get(key) for key, label in _MEASURES.items()}
        rows.append({"version": candidate.number, "family": candidate.family, **measures, "stage": stage})
    return pd.DataFrame(rows)


def _record(
    run: "Run", candidates: Sequence["Candidate"], decision: "Decision", table: "pd.DataFrame", dataset: Dataset
) -> None:
    from recsys import plots

    content = {
        "decision": asdict(decision),
        "candidates": [asdict(candidate) for candidate in candidates],
        "dataset": dataset.digest,
        "test_digest": dataset.test_digest,
    }
    run.log_json(content, "decision.json")
    run.log_table(table, "comparison.csv")
    run.set_tags({"decision": decision.reason})
    measured = [candidate for candidate in candidates if "auc" in candidate.metrics]
    if measured:
        numbers = [candidate.number for candidate in measured]
        champion = numbers.index(decision.winner) if decision.winner in numbers else None
        names = [f"{candidate.number}\n{candidate.family}" for candidate in measured]
        run.log_figures({"comparison.png": plots.comparison(names, [c.metrics["auc"] for c in measured], champion)})
        run.log_metrics({"versions": len(candidates), "best_auc": max(c.metrics["auc"] for c in measured)})


if __name__ == "__main__":
    run_step("promote", promote)
