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
from recsys.data.interactions import Interactions, join
from recsys.errors import InputError
from recsys.evaluation.baselines import baseline_recommenders
from recsys.models.base.recommender import Predictions, Recommender

TOP = 10
MOST_RANKED_USERS = 1_000  # of more users with a liked test item, this many are drawn, seeded
_PAIRS_AT_A_TIME = 1 << 19


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
        ranking: also rank the whole catalogue for the part's users, items of the rows learnt from excluded.
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
    if ranking:
        values |= _ranking(recommender, dataset, part, seed)
    if baselines:
        values |= _baselines(dataset, part, ranking, seed)
    return Evaluation(
        rows=rows,
        predictions=predictions,
        liked=liked,
        item_counts=dataset.features.item.count[rows.items],
        user_auc=user_auc,
        metrics={key: value for key, value in values.items() if np.isfinite(value)},
        undefined={key: _reason(key, liked) for key, value in values.items() if not np.isfinite(value)},
        scale=dataset.scale,
    )


_COMPARED = (
    "rmse",
    "mae",
    "auc",
    "accuracy",
    "f1_score",
    "log_loss",
    "auc_per_user",
    "ndcg_at_10",
    "recall_at_10",
    "coverage_at_10",
)


@lru_cache(maxsize=1)  # they are the same for every recommender measured on the dataset
def _baselines(dataset: Dataset, part: Literal["validation", "test"], ranking: bool, seed: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, baseline in baseline_recommenders(dataset).items():
        measured = evaluate(baseline, dataset, part=part, ranking=ranking, baselines=False, seed=seed).metrics
        found |= {f"baseline_{name}_{key}": measured[key] for key in _COMPARED if key in measured}
    return found


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
    return "no user has both likes and other ratings" if metric == "auc_per_user" else "no user likes anything"


def _ranking(recommender: Recommender, dataset: Dataset, part: str, seed: int) -> dict[str, float]:
    """Rank all known items for users who like something in the part, by the probability of a like.

    An item that nobody rated in the rows learnt from is not shown: its fallback says nothing about it, and may be on
    another scale than the scores of the others.
    """
    rows: Interactions = getattr(dataset, part)
    relevant = rows[np.flatnonzero(dataset.likes(rows))]
    users = np.unique(relevant.users)
    if len(users) > MOST_RANKED_USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, MOST_RANKED_USERS, replace=False))
    n_items = len(dataset.item_ids)
    top = min(TOP, n_items)
    if len(users) == 0:
        return dict.fromkeys(("ndcg_at_10", "recall_at_10", "coverage_at_10"), float("nan")) | {"ranked_users": 0}
    row_of = np.full(len(dataset.user_ids), -1)
    row_of[users] = np.arange(len(users))
    parts = ("train",) if part == "validation" else ("train", "validation")
    learnt = join([block[row_of[block.users] >= 0] for name in parts for block in dataset.blocks(name)])
    user_codes, item_codes = _codes(recommender, dataset)
    lists = np.empty((len(users), top), np.int64)
    hits = np.empty((len(users), top), bool)
    step = max(1, _PAIRS_AT_A_TIME // n_items)
    for start in range(0, len(users), step):
        batch = users[start : start + step]
        shape = len(batch), n_items
        pairs = np.repeat(user_codes[batch], n_items), np.tile(item_codes, len(batch))
        score = _score(recommender, *pairs).like_probability.reshape(shape)
        score[_cells(learnt, row_of, start, len(batch))] = -np.inf
        score[:, item_codes < 0] = -np.inf
        wanted = np.zeros(shape, bool)
        wanted[_cells(relevant, row_of, start, len(batch))] = True
        best = np.argpartition(-score, top - 1, axis=1)[:, :top]
        order = np.argsort(-np.take_along_axis(score, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        # Who has rated nearly everything gets a shorter list.
        shown = np.isfinite(np.take_along_axis(score, best, 1))
        lists[start : start + step] = np.where(shown, best, -1)
        hits[start : start + step] = np.take_along_axis(wanted, best, 1) & shown
    counts = np.bincount(relevant.users, minlength=len(dataset.user_ids))[users]
    return {
        "ndcg_at_10": float(metrics.ndcg(hits, counts).mean()),
        "recall_at_10": float(metrics.recall(hits, counts).mean()),
        "coverage_at_10": metrics.coverage(lists[lists >= 0], n_items),
        "ranked_users": len(users),
    }


def _cells(rows: Interactions, row_of: Codes, start: int, size: int) -> tuple[Codes, Codes]:
    """Where these rows stand in a table whose rows are the users numbered start to start + size."""
    at = row_of[rows.users] - start
    inside = (at >= 0) & (at < size)
    return at[inside], rows.items[inside]
