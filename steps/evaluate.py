"""Evaluate: a version and a dataset in, its test metrics on the record out."""

from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.settings import parse_settings
from steps.prepare import prepare_once
from steps.support import datasets
from steps.support.entrypoint import run_step
from steps.support.runs import open_run
from steps.support.stages import stage

if TYPE_CHECKING:
    from registry.versions import Version


def evaluate(parameters: Any, dataset: Dataset | None = None) -> "Version":
    """Score one version on the test set of a dataset: by default the newest, on the one it was trained from.

    Args:
        dataset: where the caller has it already, else it is found or prepared.
    """
    from registry import versions

    with open_run("evaluate") as run:
        run.log_parameters(parameters)
        version = versions.find_or_raise_version(parameters.model_name, parameters.version)
        run.set_tags({"mlflow.runName": f"evaluate version {version.number}"})
        if dataset is None:
            given = {name: value for name in Preparation.model_fields if (value := getattr(parameters, name))}
            dataset = _dataset(version, given, parameters.folder)
        return measure(version, dataset, run)


def measure(version: "Version", dataset: Dataset, run: Any) -> "Version":
    """Score a version on a dataset's test set and record it on the run, the logged model and the version."""
    from recsys.evaluation import bootstrap, evaluator, plots
    from registry import integrity, probe, versions
    from registry.replicates import ListReplicates

    with stage(f"evaluate version {version.number}"):
        recommender = integrity.load_version(version)
        probe.record(version, recommender)
        measured = evaluator.evaluate(recommender, dataset)
    run.log_dataset(dataset, "test")
    run.set_tags({"model_type": str(version.family), "version": str(version.number), "data_version": dataset.digest})
    if version.model_id:
        run.log_model_metrics(measured.metrics, version.model_id, dataset)
    else:
        run.log_metrics(measured.metrics)
    run.log_figures(plots.evaluation_plots(measured))
    errors = measured.lists.errors if measured.lists else {}
    described = {"metrics": measured.metrics, "undefined": measured.undefined, "standard_errors": errors}
    run.log_json(described, "evaluation.json")
    scored = dataset.test.users, dataset.user_ids, measured.liked, measured.predictions.like_probability
    digest = dataset.test_digest
    if measured.taking is not None:
        replicates, user_replicates = measured.taking.replicates(dataset.user_ids, digest)
    else:
        replicates = bootstrap.replicate_auc(*scored, test_digest=digest)
        user_replicates = bootstrap.replicate_user_auc(*scored, test_digest=digest)
    lists = None
    if measured.lists is not None and measured.popular is not None:
        ndcgs = measured.lists.ndcg, measured.lists.ndcg - measured.popular
        drawn = [
            bootstrap.replicate_mean(
                dataset.test.users, dataset.user_ids, measured.lists.users, values, test_digest=digest
            )
            for values in ndcgs
        ]
        lists = ListReplicates(*drawn)
    recorded = versions.record_metrics(version, digest, measured.metrics, replicates, user_replicates, lists)
    names = ("rmse", "mae", "auc", "auc_per_user")
    shown = ", ".join(f"{name} {measured.metrics[name]:.4f}" for name in names if name in measured.metrics)
    kind = "takes" if dataset.implicit else "ratings"
    said = f"version {version.number} ({version.family}) on {len(measured.rows):,} test {kind}: {shown}"
    print(said)
    run.describe(said)
    _print_lists(measured.metrics)
    timed = [f"{name} {measured.metrics[f'timed_{name}']:.4f}" for name in names if f"timed_{name}" in measured.metrics]
    if timed:
        print(f"note: asked with the moments of the test ratings, which a server is not: {', '.join(timed)}")
    if measured.taking is not None and (popular := measured.metrics.get("baseline_most_popular_auc")) is not None:
        print(f"the AUC of what is popular: {popular:.4f}")
    learnt, counted = recommender.knowledge.like_threshold, dataset.like_threshold
    if learnt != counted:
        print(f"note: version {version.number} learnt likes as ratings of at least {learnt:g}, here it is {counted:g}")
    for name, reason in measured.undefined.items():
        print(f"note: {name} is undefined: {reason}")
    return recorded


def _print_lists(metrics: dict[str, float]) -> None:
    if "ndcg_at_10" not in metrics:
        return
    whose = (
        "its lists" if metrics["makes_lists"] else "it makes no lists; all items ranked by the probability of a like"
    )
    popular = max(metrics.get(f"baseline_{name}_ndcg_at_10", 0.0) for name in ("most_popular", "most_liked"))
    print(
        f"{whose}: nDCG@10 {metrics['ndcg_at_10']:.4f} (standard error {metrics['ndcg_at_10_error']:.4f}, "
        f"{metrics['ranked_users']:,.0f} users), listing what is popular {popular:.4f}"
    )


def _dataset(version: "Version", given: dict[str, str], folder: str) -> Dataset:
    digest = version.tags.get("data_version")
    if digest is None:
        raise InputError(
            f"version {version.number} of {version.name!r} was not registered by recsys (no tag 'data_version')"
        )
    trained_from = None
    try:
        trained_from = datasets.load(digest)
    except InputError:
        if "ratings" not in given:
            raise
    if not given and trained_from:
        return trained_from
    before = trained_from.preparation.model_dump() if trained_from else {}
    return prepare_once(parse_settings(Preparation, before | given), folder)


if __name__ == "__main__":
    run_step("evaluate", evaluate)
