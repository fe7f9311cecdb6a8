"""How a recommender does on ratings that were given after those it learnt from, of known users and items and of new."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from recsys import metrics
from recsys.arrays import Array, Floats
from recsys.data.dataset import Dataset
from recsys.data.splits import digest_rows, hash_pairs
from recsys.evaluation import bootstrap
from recsys.evaluation.baselines import baseline_recommenders
from recsys.evaluation.evaluator import POPULARITIES, Evaluation, evaluate
from recsys.evaluation.lists import evaluate_lists
from recsys.evaluation.taking import evaluate_taking
from recsys.models.base.recommender import Recommender


@dataclass(frozen=True, eq=False)
class ForwardEvaluation:
    """The measures of all rows (`forward_auc` and so on), of warm and of cold ones (`forward_warm_auc`, …).

    Those of lists, where the recommender makes some, are of all users who like one of the rows, and of warm ones: users
    learnt from. `forward_popular_ndcg_at_10` is that of the better list of what is popular among the older rows.

    A row is warm where its user and its item were both learnt from. `digest` names the rows: versions may be compared
    where it is equal. The replicates of the AUC, of all and of warm rows, are those of `recsys.evaluation.bootstrap`;
    None where the AUC does not exist.
    """

    digest: str
    metrics: dict[str, float]
    replicates: Floats | None
    warm_replicates: Floats | None


def evaluate_forward(recommender: Recommender, dataset: Dataset) -> ForwardEvaluation:
    """Measure on the test part, which has timestamps and came after all that was learnt from; raises as `evaluate`.

    Without ratings the measures are those of `recsys.evaluation.taking`: what was taken next against what was never
    taken in the rows given, so that a pair of another test set counts as never taken, for every version alike.
    """
    rows = dataset.test
    knowledge = recommender.knowledge
    users, items = knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)
    warm = (users[rows.users] >= 0) & (items[rows.items] >= 0)
    hashes = hash_pairs(dataset.user_ids, dataset.item_ids, rows.users, rows.items)
    digest = digest_rows(hashes, rows.ratings, rows.timestamps, dataset.like_threshold)
    groups = {"": np.arange(len(rows)), "warm_": np.flatnonzero(warm), "cold_": np.flatnonzero(~warm)}
    if dataset.implicit:
        return _evaluate_takes(recommender, dataset, groups, digest)
    measured = evaluate(recommender, dataset, ranking=False, baselines=False)
    values = {
        f"forward_{group}{name}": value
        for group, chosen in groups.items()
        for name, value in _measures(recommender, dataset, measured, chosen).items()
        if np.isfinite(value)
    }
    if recommender.lists is not None:
        values |= _lists(recommender, dataset)
    replicates = (
        _replicates(dataset, measured, groups[group], digest) if f"forward_{group}auc" in values else None
        for group in ("", "warm_")
    )
    return ForwardEvaluation(digest, values, *replicates)


def _evaluate_takes(
    recommender: Recommender, dataset: Dataset, groups: Mapping[str, Array], digest: str
) -> ForwardEvaluation:
    """The measures where there are no ratings; what a group leaves out is neither held out nor never taken."""
    values: dict[str, float] = {}
    drawn: dict[str, Floats | None] = {"": None, "warm_": None}
    for group, chosen in groups.items():
        values[f"forward_{group}rows"] = len(chosen)
        if not len(chosen):
            continue
        others = dataset.test[np.setdiff1d(np.arange(len(dataset.test)), chosen)]
        asked = dataset.holding(test=dataset.test[chosen], validation=dataset.validation.joined(others))
        found = evaluate_taking(recommender, asked, "test", seed=0)
        of_user = found.user_auc[np.isfinite(found.user_auc)]
        measured = {
            "auc": found.auc,
            "auc_per_user": float(of_user.mean()) if len(of_user) else float("nan"),
            "expected_takes": found.expected,
        }
        values |= {f"forward_{group}{name}": value for name, value in measured.items() if np.isfinite(value)}
        if group in drawn and f"forward_{group}auc" in values:
            drawn[group] = found.replicates(dataset.user_ids, digest)[0]
    if recommender.lists is not None:
        values |= _lists(recommender, dataset)
    return ForwardEvaluation(digest, values, drawn[""], drawn["warm_"])


def _measures(recommender: Recommender, dataset: Dataset, measured: Evaluation, chosen: Array) -> dict[str, float]:
    if not len(chosen):
        return {"rows": 0}
    rows, liked = measured.rows[chosen], measured.liked[chosen]
    rating, like = (values[chosen] for values in measured.predictions)
    _, of_user = metrics.user_aucs(rows.users, liked, like)
    values = {
        "rows": len(rows),
        "auc": metrics.auc(liked, like),
        "rmse": metrics.rmse(rows.ratings, rating),
        "auc_per_user": float(of_user.mean()) if len(of_user) else float("nan"),
        "calibration_error": metrics.calibration_error(liked, like),
    }
    spread = recommender.predictive_std(dataset.user_ids[rows.users], dataset.item_ids[rows.items])
    if spread is not None:
        values["interval_coverage"] = metrics.interval_coverage(rows.ratings, rating, spread)
    return values


def _lists(recommender: Recommender, dataset: Dataset) -> dict[str, float]:
    found = evaluate_lists(recommender, dataset, "test", seed=0)
    warm = recommender.knowledge.user_codes(dataset.user_ids[found.users]) >= 0
    best = _popular_ndcg(dataset)
    values = {
        "forward_ndcg_at_10": found.metrics["ndcg_at_10"],
        "forward_recall_at_20": found.metrics["recall_at_20"],
        "forward_ranked_users": found.metrics["ranked_users"],
        "forward_popular_ndcg_at_10": float(best.mean()) if len(best) else float("nan"),
        "forward_warm_ranked_users": float(warm.sum()),
        "forward_warm_ndcg_at_10": float(found.ndcg[warm].mean()) if warm.any() else float("nan"),
        "forward_warm_popular_ndcg_at_10": float(best[warm].mean()) if warm.any() else float("nan"),
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


@lru_cache(maxsize=1)  # the same for every recommender measured on the dataset
def _popular_ndcg(dataset: Dataset) -> Floats:
    """(u,) nDCG at 10 by the better of the two lists of what is popular."""
    baselines = baseline_recommenders(dataset)
    popular = [
        evaluate_lists(baselines[name], dataset, "test", seed=0).ndcg for name in POPULARITIES if name in baselines
    ]
    return max(popular, key=lambda ndcg: float(ndcg.sum()))


def _replicates(dataset: Dataset, measured: Evaluation, chosen: Array, digest: str) -> Floats:
    users, like = measured.rows.users[chosen], measured.predictions.like_probability[chosen]
    return bootstrap.replicate_auc(users, dataset.user_ids, measured.liked[chosen], like, test_digest=digest)
