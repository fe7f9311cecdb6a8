"""The list model of a recommender: who rated what, item-to-item weights, and what validation chose of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys import metrics
from recsys.arrays import Array, Codes, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.models.base.item_to_item import CoCounts, ItemToItem, Regression, Signal, count_together, learn_item_to_item
from recsys.models.base.lists import ListModel, ListSettings, RatedItems
from recsys.models.base.ranking import POOL, best_items
from recsys.models.base.recommender import Recommender
from recsys.runtime import memory

SIGNALS: tuple[Signal, ...] = ("ratings", "likes")
RIDGES = (100.0, 200.0, 400.0, 800.0)
RELATIVE_RIDGES = (0.3, 0.0, 1.0)
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TOP = 10
MOST_USERS = 3_000  # by whose validation likes is chosen
_MEMORY_A_ROW = 60  # bytes, while the rows are sorted and counted


@dataclass(frozen=True, eq=False)
class _Validation:
    """The users by whom is chosen, shape (u,), and of each the liked validation items: what lists should begin with."""

    users: Codes
    relevant: list[Codes]
    counts: Array  # (u,) likes, those of unknown items among them


def add_lists(chosen: Recommender, final: Recommender, dataset: Dataset) -> None:
    """Learn the list models of both recommenders of a training; the second keeps what the first chose.

    Nothing is added where the rows do not fit in memory.
    """
    rows = dataset.size("train") + dataset.size("validation")
    if rows * _MEMORY_A_ROW > memory.available():
        return
    chosen.lists = _learn_and_choose(chosen, dataset)
    if final is not chosen:
        rated = collect_ratings(final, dataset, ("train", "validation"))
        counts = _count(rated, chosen.lists.regression, final)
        item_to_item = learn_item_to_item(counts, chosen.lists.regression)
        final.lists = _list_model(rated, item_to_item, chosen.lists.regression, chosen.lists.exponent, final)


def collect_ratings(recommender: Recommender, dataset: Dataset, parts: Sequence[str]) -> RatedItems:
    """The rows of these parts in the codes of the recommender, sorted by user and item, without a copy of all rows."""
    knowledge = recommender.knowledge
    users, items = knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)

    def blocks() -> Iterator[Interactions]:
        for part in parts:
            for block in dataset.blocks(part):
                yield Interactions(users[block.users], items[block.items], block.ratings)

    starts = np.zeros(len(knowledge.user_ids) + 1, np.int64)
    for block in blocks():
        starts[1:] += np.bincount(block.users, minlength=len(knowledge.user_ids))
    np.cumsum(starts, out=starts)
    sorted_items = np.empty(starts[-1], np.int32)
    ratings = np.empty(starts[-1], np.float32)
    filled = starts[:-1].copy()
    for block in blocks():
        order = np.argsort(block.users, kind="stable")
        whose = block.users[order]
        first = np.searchsorted(whose, whose)
        at = filled[whose] + np.arange(len(whose)) - first
        sorted_items[at], ratings[at] = block.items[order], block.ratings[order]
        filled += np.bincount(whose, minlength=len(filled))
    for user in range(len(filled)):
        part = slice(starts[user], starts[user + 1])
        order = np.argsort(sorted_items[part])
        sorted_items[part], ratings[part] = sorted_items[part][order], ratings[part][order]
    return RatedItems(starts, sorted_items, ratings)


def _count(rated: RatedItems, regression: Regression, recommender: Recommender) -> CoCounts:
    from scipy.sparse import csr_matrix

    knowledge = recommender.knowledge
    values = regression.values(rated.ratings, knowledge.scale, knowledge.like_threshold)
    shape = len(knowledge.user_ids), len(knowledge.item_ids)
    return count_together(csr_matrix((values, rated.items, rated.starts), shape))


def _list_model(
    rated: RatedItems, item_to_item: ItemToItem, regression: Regression, exponent: float, recommender: Recommender
) -> ListModel:
    knowledge = recommender.knowledge
    popularity = np.bincount(rated.items, minlength=len(knowledge.item_ids)) / len(knowledge.user_ids)
    return ListModel(item_to_item, regression, exponent, rated, popularity)


def _learn_and_choose(recommender: Recommender, dataset: Dataset) -> ListModel:
    """Choose in turn the ridge, the relative ridge, the input, and the exponent: each by nDCG of validation likes.

    That is one of at most 12 settings; of equally good ones the earlier is taken.
    """
    settings, rated = recommender.list_settings(), collect_ratings(recommender, dataset, ("train",))
    validation = _validation_of(recommender, dataset)
    counts: dict[Signal, CoCounts] = {}

    def attempt(regression: Regression) -> tuple[Floats, ListModel]:
        if regression.signal not in counts:
            counts[regression.signal] = _count(rated, regression, recommender)
        item_to_item = learn_item_to_item(counts[regression.signal], regression)
        model = _list_model(rated, item_to_item, regression, 0.0, recommender)
        return _ndcgs(recommender, model, validation, [0.0])[0], model

    best = attempt(_first(settings))
    for change in _changes(settings) if len(validation.users) else ():
        tried = replace(best[1].regression, **change)
        if tried == best[1].regression:
            continue
        found = attempt(tried)
        gain = found[0] - best[0]
        # Another input has to be better by more than a standard error: it answers for other users, too.
        needed = gain.std() / np.sqrt(max(len(gain) - 1, 1)) if "signal" in change else 0.0
        if gain.mean() > needed:
            best = found
    exponents = EXPONENTS if settings.exponent is None else (settings.exponent,)
    worth = _ndcgs(recommender, best[1], validation, exponents).sum(axis=1)
    return replace(best[1], exponent=exponents[int(np.argmax(worth))])


def _first(settings: ListSettings) -> Regression:
    return Regression(
        settings.signal or SIGNALS[0],
        RIDGES[1] if settings.ridge is None else settings.ridge,
        RELATIVE_RIDGES[0] if settings.relative_ridge is None else settings.relative_ridge,
    )


def _changes(settings: ListSettings) -> list[dict[str, Any]]:
    """What to try in turn, each on the best so far."""
    found: list[dict[str, Any]] = []
    found += [{"ridge": ridge} for ridge in RIDGES if settings.ridge is None]
    found += [{"relative_ridge": share} for share in RELATIVE_RIDGES if settings.relative_ridge is None]
    found += [{"signal": kind} for kind in SIGNALS if settings.signal is None]
    return found


def _validation_of(recommender: Recommender, dataset: Dataset) -> _Validation:
    """All users learnt from who like something in the validation rows, or evenly spaced ones of more."""
    rows = dataset.validation
    rows = rows[np.flatnonzero(dataset.likes(rows))]
    users = recommender.knowledge.user_codes(dataset.user_ids)[rows.users]
    items = recommender.knowledge.item_codes(dataset.item_ids)[rows.items]
    rated = np.unique(users[users >= 0])
    rated = rated[:: -(-len(rated) // MOST_USERS) or 1]
    order = np.argsort(users, kind="stable")
    first, last = np.searchsorted(users[order], rated), np.searchsorted(users[order], rated, "right")
    relevant = [items[order[start:end]] for start, end in zip(first, last, strict=True)]
    return _Validation(rated, relevant, last - first)


def _ndcgs(recommender: Recommender, model: ListModel, validation: _Validation, exponents: Sequence[float]) -> Floats:
    """Normalised DCG of likes at TOP of each user's list by each exponent, shape (exponents, users)."""
    if len(validation.users) == 0:
        return np.zeros((len(exponents), 0))
    top, asked = min(TOP, len(recommender.knowledge.item_ids)), any(exponents)
    drawn = [_pool(recommender, model, int(user), POOL if asked else top) for user in validation.users]
    sizes = [len(pool) for pool, _ in drawn]
    likes = np.ones(sum(sizes))
    if asked:
        users, items = np.repeat(validation.users, sizes), np.concatenate([pool for pool, _ in drawn])
        likes = recommender.score(users, items).like_probability
    shares = np.split(likes, np.cumsum(sizes)[:-1])
    hits = np.zeros((len(exponents), len(drawn), top), bool)
    for number, exponent in enumerate(exponents):
        tried = replace(model, exponent=exponent)
        for row, ((pool, takes), like) in enumerate(zip(drawn, shares, strict=True)):
            order = best_items(tried.product(takes, like), top)
            hits[number, row, : len(order)] = np.isin(pool[order], validation.relevant[row])
    return np.array([metrics.ndcg(hit, validation.counts) for hit in hits])


def _pool(recommender: Recommender, model: ListModel, user: int, size: int) -> tuple[Codes, Floats]:
    """The unseen items of highest P(takes), in ascending order, and that factor."""
    items, ratings = model.rated.of(user)
    values = model.regression.values(ratings, recommender.knowledge.scale, recommender.knowledge.like_threshold)
    takes = model.takes(items if values.any() else items[:0], values)
    allowed = np.ones(len(takes), bool)
    allowed[items] = False
    pool = np.sort(best_items(takes, size, allowed))
    return pool, takes[pool]
