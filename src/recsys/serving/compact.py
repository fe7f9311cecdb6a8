"""Making the served form of a version: expected ratings at low rank, item-to-item weights, and what that loses."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from recsys.arrays import Array, Codes, Floats
from recsys.errors import InputError
from recsys.models.base import taking
from recsys.models.base.factors import RatingFactors
from recsys.models.base.item_to_item import ItemToItem
from recsys.models.base.list_recommender import ListRecommender
from recsys.models.base.recommender import Recommender
from recsys.serving.engine import Engine
from recsys.serving.form import Form, open_form, write_form
from recsys.serving.ids import pack_ids

RANK = 32
_BLOCK = 1 << 14  # rows of a table at a time
_GRID = 2 * 10**8  # most pairs whose expected ratings are computed one by one, for a family without factors
_SAMPLE_USERS, _SAMPLE_ITEMS = 200, 4000
_PROBES = 8
_TOP = 10


class _Lists(NamedTuple):
    """What lists are made from, in the codes of sorted ids."""

    item_to_item: ItemToItem
    history_ends: Array  # (n_users + 1,)
    history_items: Codes
    history_values: Array
    history_newer: Array
    about: dict[str, Any] | None  # None of a version without lists, which has histories only


class _Tables(NamedTuple):
    """What scores are made from, in the version's codes, and how a probability follows."""

    user_factors: Array  # (n_users, r)
    item_factors: Array
    user_bias: Floats  # with the mean
    item_bias: Floats
    user_variance: Floats
    item_variance: Floats
    link: dict[str, Any]
    unlinked: float = 0.0  # of the probability of a like: what is lost at any rank, root mean square


def make_form(
    recommender: Recommender,
    folder: Path,
    about: Mapping[str, Any],
    *,
    rank: int = RANK,
    max_loss: float = 0.02,
    titles: Mapping[str, str] | None = None,
) -> Form:
    """Make the served form of a version in a folder, measure what it loses, and open it.

    Args:
        about: what else form.json says; "version" and "model" at least.
        max_loss: of the probability of a like, as root mean square over a sample of pairs.
        titles: what items are called, by id; those without one are shown by their id.

    Raises:
        InputError: if it loses more.
    """
    knowledge = recommender.knowledge
    tables = _tables(recommender, rank)
    user_order, item_order = (np.argsort(ids.astype(str)) for ids in (knowledge.user_ids, knowledge.item_ids))
    user_ids, user_ends = pack_ids(knowledge.user_ids[user_order].tolist())
    item_ids, item_ends = pack_ids(knowledge.item_ids[item_order].tolist())
    title_text, title_ends = pack_ids([(titles or {}).get(name, "") for name in knowledge.item_ids[item_order]])
    lists = _lists(recommender, user_order, item_order)
    counts = np.bincount(lists.history_items, minlength=len(item_order))
    arrays = {
        "user_ids": user_ids,
        "user_id_ends": user_ends,
        "item_ids": item_ids,
        "item_id_ends": item_ends,
        "titles": title_text,
        "title_ends": title_ends,
        "user_factors": tables.user_factors[user_order].astype(np.float16),
        "item_factors": tables.item_factors[item_order].astype(np.float32),
        "user_bias": tables.user_bias[user_order].astype(np.float32),
        "item_bias": tables.item_bias[item_order].astype(np.float32),
        "user_variance": tables.user_variance[user_order].astype(np.float32),
        "item_variance": tables.item_variance[item_order].astype(np.float32),
        "user_fallback": (knowledge.biases.mean + knowledge.biases.user[user_order]).astype(np.float32),
        "item_fallback": knowledge.biases.item[item_order].astype(np.float32),
        "history_ends": lists.history_ends,
        "history_items": lists.history_items,
        "history_values": lists.history_values,
        "history_newer": lists.history_newer,
        "weight_starts": lists.item_to_item.starts,
        "neighbours": lists.item_to_item.neighbours,
        "weights": lists.item_to_item.weights,
        "popularity": counts.astype(np.float32),
        "most_popular": np.argsort(-counts, kind="stable").astype(np.int32),
    }
    described = {
        **about,
        "family": recommender.family,
        "scale": list(knowledge.scale),
        "like_threshold": knowledge.like_threshold,
        "mean": knowledge.biases.mean,
        "calibration": [knowledge.calibration.slope, knowledge.calibration.intercept],
        "link": tables.link,
        "lists": lists.about,
        "rank": tables.user_factors.shape[1],
        "sizes": {"users": len(user_order), "items": len(item_order), "ratings": len(lists.history_items)},
        # Of factors of which nothing is known: what a new user's ratings are weighed against.
        "prior": {
            "bias": [float(tables.user_bias.mean()), float(tables.user_bias.var())],
            "factors": np.square(tables.user_factors).mean(0).tolist(),
            "noise": float(tables.user_variance.mean()),
        },
    }
    engine = Engine.of_arrays(arrays, described)
    loss = measure_loss(recommender, engine, user_order, item_order)
    if loss["probability_rmse"] > max_loss:
        remedy = "pass a higher rank or max_loss"
        if tables.unlinked > max_loss:
            remedy = (
                f"{tables.unlinked:.4f} of it at any rank, as probabilities of family {recommender.family!r} do not "
                "follow from its expected ratings alone; pass a higher max_loss, or promote a version of another family"
            )
        raise InputError(
            f"version {about.get('version')}: its served form at rank {rank} changes the probability of a like by "
            f"{loss['probability_rmse']:.4f} (root mean square), more than max_loss={max_loss:g}; {remedy}"
        )
    described |= {"loss": loss, "probe": engine.probe(_PROBES)}
    return open_form(write_form(folder, arrays, described))


def _tables(recommender: Recommender, rank: int) -> _Tables:
    if isinstance(recommender, ListRecommender):  # the history says all beyond the biases: nothing is cut off
        biases = recommender.knowledge.biases
        users, items = len(biases.user), len(biases.item)
        none = np.zeros((users, 0)), np.zeros((items, 0))
        variances = np.ones(users), np.zeros(items)
        return _Tables(*none, biases.mean + biases.user, biases.item, *variances, taking.described(recommender.judge))
    factors, unlinked = recommender.rating_factors(), 0.0
    if factors is None:
        factors, unlinked = _from_grid(recommender)
    link = {
        "kind": factors.link,
        "slope": factors.slope,
        "threshold": factors.threshold,
        "uncertain": factors.uncertain,
    }
    return _Tables(*_truncate(factors, rank), factors.user_variance, factors.item_variance, link, unlinked)


def _truncate(factors: RatingFactors, rank: int) -> tuple[Array, Array, Floats, Floats]:
    """Factors (n_users, rank) and (n_items, rank), and biases, whose ratings are nearest to those of `factors`.

    The ratings less their row and column means are a product of two centred tables, and the singular vectors of
    that follow from the tables' two Gram matrices, which are small.
    """
    users, items, scale = factors.users, factors.items, factors.scale
    user_mean, item_mean = users.mean(0, dtype=np.float64), items.mean(0, dtype=np.float64)
    user_bias = factors.constant + scale * _product(users, np.zeros_like(user_mean), item_mean[:, None])[:, 0]
    item_bias = scale * _product(items, item_mean, user_mean[:, None])[:, 0]
    roots = [_root(_gram(users, user_mean)), _root(_gram(items, item_mean))]
    left, values, right = np.linalg.svd(roots[0][0] @ roots[1][0])
    kept = min(rank, int((values > values[0] * 1e-9).sum()) if values[0] > 0 else 1)
    spread = np.sqrt(scale * values[:kept])
    return (
        _product(users, user_mean, roots[0][1] @ left[:, :kept] * spread),
        _product(items, item_mean, roots[1][1] @ right[:kept].T * spread),
        user_bias,
        item_bias,
    )


def _blocks(n: int, step: int = _BLOCK) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, start + step)


def _gram(table: Array, mean: Floats) -> Floats:
    total = np.zeros((table.shape[1], table.shape[1]))
    for block in _blocks(len(table)):
        centred = table[block] - mean
        total += centred.T @ centred
    return total


def _product(table: Array, mean: Floats, other: Floats) -> Floats:
    return np.concatenate([(table[block] - mean) @ other for block in _blocks(len(table))])


def _root(gram: Floats) -> tuple[Floats, Floats]:
    """The square root of a Gram matrix, and its inverse where there is one."""
    values, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(values, 0))
    inverse = np.where(values > values.max() * 1e-7, 1 / np.maximum(values, 1e-300), 0)
    return vectors * values @ vectors.T, vectors * inverse @ vectors.T


def _from_grid(recommender: Recommender) -> tuple[RatingFactors, float]:
    """A family without factors: every expected rating, and the line that leads nearest to its probabilities.

    And how far that is from these, root mean square.
    """
    n_users, n_items = len(recommender.knowledge.user_ids), len(recommender.knowledge.item_ids)
    if n_users * n_items > _GRID:
        raise InputError(
            f"family {recommender.family!r}: it has no factors, so that all {n_users * n_items:,} pairs would be "
            f"scored for its served form, of at most {_GRID:,}; serve a version of another family"
        )
    rating, like = np.empty((n_users, n_items), np.float32), np.empty((n_users, n_items), np.float32)
    items = np.arange(n_items, dtype=np.int32)
    for block in _blocks(n_users, max(1, (1 << 20) // n_items)):
        users = np.arange(n_users, dtype=np.int32)[block]
        found = recommender.score(np.repeat(users, n_items), np.tile(items, len(users)))
        rating[block], like[block] = (part.reshape(len(users), n_items) for part in found)
    odds = np.log(np.clip(like, 1e-6, 1 - 1e-6) / np.clip(1 - like, 1e-6, 1))
    varies = rating.var() > 0
    slope = float(np.mean((rating - rating.mean()) * (odds - odds.mean())) / rating.var()) if varies else 0.0
    slope = slope or 1e-9
    threshold = float(rating.mean() - odds.mean() / slope)
    unlinked = float(np.sqrt(np.square(expit(slope * (rating - threshold)) - like).mean()))
    factors = RatingFactors(
        users=rating,
        items=np.eye(n_items, dtype=np.float32),
        constant=0.0,
        scale=1.0,
        user_variance=np.ones(n_users),
        item_variance=np.zeros(n_items),
        slope=slope,
        threshold=threshold,
        link="logit",
    )
    return factors, unlinked


def _lists(recommender: Recommender, user_order: Array, item_order: Array) -> _Lists:
    """The version's list model in the codes of sorted ids."""
    model, seen = recommender.lists, recommender.knowledge.seen
    if model is None:
        users, items = seen[:, 0], seen[:, 1]
        ratings = np.full(len(seen), np.nan, np.float16)
    else:
        users = np.repeat(np.arange(len(user_order)), np.diff(model.rated.starts))
        items, ratings = model.rated.items, model.rated.ratings
        if np.array_equal(ratings.astype(np.float16), ratings):
            ratings = ratings.astype(np.float16)
    user_at, item_at = np.argsort(user_order).astype(np.int32), np.argsort(item_order).astype(np.int32)
    users, items = user_at[users], item_at[items]
    ends = np.zeros(len(user_order) + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_order)), out=ends[1:])
    order = np.lexsort((items, users))
    items, ratings, newer = items[order], ratings[order], np.zeros(0, np.int32)
    if model is None:
        nothing = ItemToItem(np.zeros(len(item_order) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        return _Lists(nothing, ends, items, ratings, newer, None)
    if model.rated.newer is not None:
        newer = model.rated.newer[order]
    chosen = model.regression
    about = {
        "signal": chosen.signal,
        "ridge": chosen.ridge,
        "relative_ridge": chosen.relative_ridge,
        "half_life": chosen.half_life,
        "exponent": model.exponent,
    }
    return _Lists(_reordered(model.item_to_item, item_order), ends, items, ratings, newer, about)


def _reordered(model: ItemToItem, order: Array) -> ItemToItem:
    """The same weights where code i is what was order[i]."""
    if np.array_equal(order, np.arange(len(order))):
        return model
    table = csr_array((model.weights, model.neighbours, model.starts), shape=(len(order), len(order)))
    moved = table[order][:, order]
    moved.sort_indices()
    return ItemToItem(moved.indptr.astype(np.int64), moved.indices.astype(np.int32), moved.data.astype(np.float32))


def measure_loss(recommender: Recommender, engine: Engine, user_order: Array, item_order: Array) -> dict[str, float]:
    """How far the form's ratings, probabilities and lists are from the version's, on a sample of users and items.

    `top_10_overlap` is the share of a user's ten most probable likes that both name. `auc` and `ndcg_at_10` are what
    the form loses of these measures if the version is right: of the AUC that its probabilities promise, where the
    form's put the pairs in order; and of its lists, where an item gains what the version scores it, and nothing if the
    version does not list it.
    """
    random = np.random.default_rng(0)
    users, items = (
        np.sort(random.permutation(len(order))[:most])
        for order, most in ((user_order, _SAMPLE_USERS), (item_order, _SAMPLE_ITEMS))
    )
    squares, overlap = np.zeros(2), 0.0
    likes = np.empty((2, len(users), len(items)))
    top = min(_TOP, len(items))
    for row, user in enumerate(users):
        same = np.full(len(items), user_order[user], np.int32)
        version = recommender.score(same, item_order[items].astype(np.int32))
        form = engine.predict_known(int(user), items)
        squares += [np.square(one - other).mean() for one, other in zip(version, form, strict=True)]
        likes[:, row] = version.like_probability, form[1]
        best = (set(np.argsort(-part, kind="stable")[:top]) for part in (version.like_probability, form[1]))
        overlap += len(set.intersection(*best)) / top
    rating, probability = np.sqrt(squares / len(users))
    version_likes, form_likes = likes.reshape(2, -1)
    return {
        "rating_rmse": float(rating),
        "probability_rmse": float(probability),
        f"top_{_TOP}_overlap": overlap / len(users),
        "auc": promised_auc(version_likes, version_likes) - promised_auc(version_likes, form_likes),
        f"ndcg_at_{_TOP}": _lost_ndcg(recommender, engine, users),
        "pairs": float(len(users) * len(items)),
    }


def promised_auc(likes: Floats, scores: Floats) -> float:
    """The AUC to be expected of scores, (n,), where these are the probabilities of a like: equal ones count half."""
    _, tie = np.unique(scores, return_inverse=True)
    liked, others = np.bincount(tie, likes), np.bincount(tie, 1 - likes)
    won = float(liked @ (np.cumsum(others) - others / 2))
    return won / max(float(liked.sum() * others.sum()), 1e-300)


def _lost_ndcg(recommender: Recommender, engine: Engine, users: Array) -> float:
    """What the lists of some users, in the form's codes, lose of nDCG if the version's scores are what is gained."""
    if not engine.makes_lists:
        return 0.0
    names = np.array([engine.users[user] for user in users.tolist()], object)
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    found, kept = recommender.recommend(names, _TOP), []
    for user, items, scores in zip(users.tolist(), found.items, found.scores, strict=True):
        gains = dict(zip(items.tolist(), np.maximum(scores, 0).tolist(), strict=True))
        listed = engine.recommend(user, engine.history(user), _TOP).items.tolist()
        gained = np.array([gains.get(engine.items[item], 0.0) for item in listed])
        best = float(np.sort(np.maximum(scores, 0))[::-1] @ discounts[: len(scores)])
        kept.append(float(gained @ discounts[: len(gained)]) / best if best > 0 else 1.0)
    return 1 - float(np.mean(kept))
