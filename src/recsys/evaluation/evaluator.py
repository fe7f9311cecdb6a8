"""A recommender and a dataset in, an Evaluation out.

A row is asked for as a server asks: by user and item, without the moment of its rating, which nobody knows before it is
given (docs/decisions/0015-as-served.md).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from recsys import metrics
from recsys.arrays import Codes, Flags, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.evaluation.baselines import baseline_recommenders
from recsys.evaluation.lists import MEASURES, ListEvaluation, evaluate_lists
from recsys.models.base.recommender import Predictions, Recommender

POPULARITIES = ("most_popular", "most_liked")
"""The baselines that list what is popular: what has most ratings, and what has most likes."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a recommender does on the rows of one part of a dataset.

    `metrics` holds finite numbers only; `undefined` names the metrics that do not exist on these rows, with the
    reason. `user_auc` has shape (users with both classes,).
    """

    rows: Interactions
    predictions: Predictions
    liked: Flags
    item_counts: Floats
    user_auc: Floats
    metrics: dict[str, float]
    undefined: dict[str, str]
    scale: tuple[float, float]
    lists: ListEvaluation | None = None
    popular: Floats | None = None
    """(u,) nDCG at 10 of the users that `lists` is about, by the better of the two lists of what is popular."""


def evaluate(
    recommender: Recommender,
    dataset: Dataset,
    *,
    part: Literal["validation", "test"] = "test",
    ranking: bool = True,
    baselines: bool = True,
    seed: int = 42,
) -> Evaluation:
    """Measure a recommender on every row of a part; unknown users and items are scored by the fallback.

    Rows are scored as served, without their timestamps. What these would add is measured beside, as `timed_auc`,
    `timed_rmse` and `timed_auc_per_user`, where there are some and the recommender uses them.

    Args:
        ranking: also measure lists (`recsys.evaluation.lists`) for those of the part's users who like something.
        baselines: also measure the baselines on the same rows, as `baseline_bias_rmse` and so on.

    Raises:
        InputError: if a prediction is not finite or a probability is outside [0, 1].
    """
    rows: Interactions = getattr(dataset, part)
    liked = dataset.likes(rows)
    users, items = _codes(recommender, dataset)
    pairs = users[rows.users], items[rows.items]
    predictions = _score(recommender, *pairs)
    _, user_auc = metrics.user_aucs(rows.users, liked, predictions.like_probability)
    values = _pooled(rows, liked, predictions)
    values |= {
        "auc_per_user": _mean(user_auc),
        "rows": len(rows),
        "positive_rate": float(liked.mean()),
        "auc_users": len(user_auc),
        "unknown_user_rows": int((users[rows.users] < 0).sum()),
        "unknown_item_rows": int((items[rows.items] < 0).sum()),
        "seen_rows": recommender.knowledge.count_seen(users[rows.users], items[rows.items]),
    }
    spread = recommender.predictive_std(dataset.user_ids[rows.users], dataset.item_ids[rows.items])
    if spread is not None:
        values["interval_coverage"] = metrics.interval_coverage(rows.ratings, predictions.rating, spread)
    if rows.timestamps is not None and recommender.uses_time:
        values |= _timed(rows, liked, _score(recommender, *pairs, rows.timestamps))
    lists = evaluate_lists(recommender, dataset, part, seed) if ranking else None
    if lists is not None:
        values |= lists.metrics | {"makes_lists": float(recommender.lists is not None)}
    popular = None
    if baselines:
        measured, popular = _baselines(dataset, part, ranking, seed)
        values |= measured
    return Evaluation(
        rows=rows,
        predictions=predictions,
        liked=liked,
        item_counts=dataset.features.item.count[rows.items],
        user_auc=user_auc,
        metrics={key: value for key, value in values.items() if np.isfinite(value)},
        undefined={key: _reason(key, liked) for key, value in values.items() if not np.isfinite(value)},
        scale=dataset.scale,
        lists=lists,
        popular=popular,
    )


_COMPARED = ("rmse", "mae", "auc", "accuracy", "f1_score", "log_loss", "auc_per_user", *MEASURES)


@lru_cache(maxsize=1)  # they are the same for every recommender measured on the dataset
def _baselines(
    dataset: Dataset, part: Literal["validation", "test"], ranking: bool, seed: int
) -> tuple[dict[str, float], Floats | None]:
    """The measures of the baselines, and each user's nDCG by the better one of POPULARITIES."""
    found: dict[str, float] = {}
    ndcgs: list[Floats] = []
    for name, baseline in baseline_recommenders(dataset).items():
        measured = evaluate(baseline, dataset, part=part, ranking=ranking, baselines=False, seed=seed)
        found |= {f"baseline_{name}_{key}": measured.metrics[key] for key in _COMPARED if key in measured.metrics}
        if name in POPULARITIES and measured.lists is not None and len(measured.lists.users):
            ndcgs.append(measured.lists.ndcg)
    return found, max(ndcgs, key=np.mean) if ndcgs else None


def _codes(recommender: Recommender, dataset: Dataset) -> tuple[Codes, Codes]:
    knowledge = recommender.knowledge
    return knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)


def _score(recommender: Recommender, users: Codes, items: Codes, timestamps: Floats | None = None) -> Predictions:
    rating, like = predictions = recommender.score(users, items, timestamps)
    wrong = ~np.isfinite(rating) | ~(like >= 0) | ~(like <= 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{recommender.family}: finite ratings and probabilities from 0 to 1 are needed, got rating {rating[row]} "
            f"and probability {like[row]} in {int(wrong.sum())} of {len(rating)} rows; train the version again"
        )
    return predictions


def _pooled(rows: Interactions, liked: Flags, predictions: Predictions) -> dict[str, float]:
    rating, like = predictions
    return {
        "rmse": metrics.rmse(rows.ratings, rating),
        "mae": metrics.mae(rows.ratings, rating),
        "auc": metrics.auc(liked, like),
        "accuracy": metrics.accuracy(liked, like),
        "f1_score": metrics.f1_score(liked, like),
        "log_loss": metrics.log_loss(liked, like),
        "calibration_error": metrics.calibration_error(liked, like),
    }


def _timed(rows: Interactions, liked: Flags, predictions: Predictions) -> dict[str, float]:
    """The measures that stand beside those as served, of predictions for the moments of the rows."""
    _, user_auc = metrics.user_aucs(rows.users, liked, predictions.like_probability)
    return {
        "timed_auc": metrics.auc(liked, predictions.like_probability),
        "timed_rmse": metrics.rmse(rows.ratings, predictions.rating),
        "timed_auc_per_user": _mean(user_auc),
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _reason(metric: str, liked: Flags) -> str:
    metric = metric.removeprefix("timed_")
    if metric == "auc":
        return f"all {len(liked)} rows are {'likes' if liked.all() else 'no likes'}"
    if metric == "auc_per_user":
        return "no user has both likes and other ratings"
    return "no user likes anything" if not liked.any() else "no list has so many items"
