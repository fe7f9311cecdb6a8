"""The list model of a recommender: who rated what, item-to-item weights, and what validation chose of them."""

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from recsys import metrics
from recsys.arrays import Array, Codes, Flags, Floats
from recsys.data.dataset import Dataset
from recsys.errors import InputError
from recsys.models.base.item_to_item import (
    DENSE_ITEMS,
    CoCounts,
    Regression,
    Signal,
    count_together,
    learn_item_to_item,
)
from recsys.models.base.list_recommender import ListRecommender
from recsys.models.base.lists import ListModel, ListSettings
from recsys.models.base.ranking import POOL, best_of_rows
from recsys.models.base.recommender import Recommender
from recsys.runtime import memory
from recsys.runtime.blas import threads_for
from recsys.training.histories import Histories, collect_histories
from recsys.training.taking import answer_by_lists

SIGNALS: tuple[Signal, ...] = ("ratings", "likes")
RIDGES = (100.0, 200.0, 400.0, 800.0)
RELATIVE_RIDGES = (0.3, 0.0, 1.0)
SESSION_WEIGHTS = (0.0, 0.5, 1.0)
HALF_LIVES = (100.0, 30.0, 10.0, 3.0)
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
HALF = EXPONENTS.index(0.5)  # which the others have to be clearly better than
ERRORS_AHEAD = {"half_life": 2.0, "signal": 1.0, "session_weight": 1.0, "exponent": 2.0}
"""By how many standard errors of nDCG@10 something else has to be ahead."""
TOP = 10
MOST_USERS = 3_000  # by whose validation likes a regression is chosen
MOST_OF_EXPONENT = 10_000  # the exponent: what differs is small, and each user is asked once
_MEMORY_A_ROW = 100  # bytes, while the rows are sorted and counted
_CELLS_AT_A_TIME = 1 << 21  # users times items whose scores are held
_AT_ONCE = 2  # regressions, each with one thread, where there is memory for them
_MEMORY_A_PAIR = 40  # bytes, while one of items² weights is computed and tried


@dataclass(frozen=True, eq=False)
class _Validation:
    """The users by whom is chosen, shape (u,), and their liked validation items: what lists should begin with."""

    users: Codes
    rows: Codes  # (n,) whose each liked item is, a position in `users`
    items: Codes  # (n,), -1 where unknown
    counts: Array  # (u,) likes, those of unknown items among them


@dataclass(frozen=True, eq=False)
class _Pools:
    """The items from which each user's list is chosen, in ascending order: arrays of shape (u, POOL or less)."""

    items: Codes
    takes: Floats  # -inf for what may not be listed
    likes: Floats
    relevant: Flags


def add_lists(chosen: Recommender, final: Recommender, dataset: Dataset) -> None:
    """Learn the list models of both recommenders of a training; the second keeps what the first chose.

    Nothing is added where the rows do not fit in memory.
    """
    rows, needed = dataset.size("train") + dataset.size("validation"), isinstance(chosen, ListRecommender)
    if needed:
        remedy = "use a machine with more, or fewer ratings"
        memory.check(rows * _MEMORY_A_ROW, f"family {chosen.family}, which counts all {rows:,} ratings,", remedy)
    elif rows * _MEMORY_A_ROW > memory.available():
        return
    chosen.lists = _learn_and_choose(chosen, dataset)
    if final is not chosen:
        final.lists = _learn_as(chosen.lists, final, dataset, ("train", "validation"))
    if isinstance(chosen, ListRecommender) and isinstance(final, ListRecommender):
        answer_by_lists(chosen, final, dataset)


def learn_lists_as(chosen: ListModel, recommender: Recommender, dataset: Dataset) -> ListModel:
    """A list model for a recommender of the training rows alone, with the settings of another: nothing is chosen."""
    return _learn_as(chosen, recommender, dataset, ("train",))


@lru_cache(maxsize=2)  # a dataset, and the older of its rows
def _shared(dataset: Dataset) -> dict[Hashable, ListModel]:
    """What was learnt from the rows of a dataset, to be learnt once for all families that this process trains on it."""
    return {}


def _learn_as(chosen: ListModel, recommender: Recommender, dataset: Dataset, parts: tuple[str, ...]) -> ListModel:
    shared, key = _shared(dataset), (parts, chosen.regression, recommender.list_settings().dense)
    if key not in shared:
        histories = collect_histories(recommender, dataset, parts)
        counts = _count(histories, chosen.regression, recommender)
        shared[key] = _list_model(histories, counts, chosen.regression, recommender)
    return replace(shared[key], exponent=chosen.exponent)


def _count(histories: Histories, regression: Regression, recommender: Recommender) -> CoCounts:
    from scipy.sparse import csr_matrix, vstack

    knowledge, rated = recommender.knowledge, histories.rated
    values = regression.values(rated.ratings, knowledge.scale, knowledge.like_threshold)
    n_items = len(knowledge.item_ids)
    matrix = csr_matrix((values, rated.items, rated.starts), (len(knowledge.user_ids), n_items))
    if regression.session_weight and histories.sessions is not None:
        weighted = values * np.float32(np.sqrt(regression.session_weight))
        shape = int(histories.sessions.max()) + 1, n_items
        matrix = vstack([matrix, csr_matrix((weighted, (histories.sessions, rated.items)), shape)], format="csr")
    dense = recommender.list_settings().dense
    return count_together(matrix, DENSE_ITEMS if dense is None else n_items if dense else 0)


def _list_model(histories: Histories, counts: CoCounts, regression: Regression, recommender: Recommender) -> ListModel:
    knowledge = recommender.knowledge
    popularity = np.bincount(histories.rated.items, minlength=len(knowledge.item_ids)) / len(knowledge.user_ids)
    item_to_item = learn_item_to_item(counts, regression)
    return ListModel(item_to_item, regression, 0.0, histories.rated_as(regression.half_life), popularity)


def _learn_and_choose(recommender: Recommender, dataset: Dataset) -> ListModel:
    """Choose the regression, and then the exponent of the like probability, by nDCG of validation likes."""
    settings = recommender.list_settings()
    shared, key = _shared(dataset), replace(settings, exponent=None)
    if key not in shared:
        shared[key] = _choose_regression(recommender, dataset, _validation_of(recommender, dataset, MOST_USERS))
    exponent = settings.exponent
    if exponent is None:
        validation = _validation_of(recommender, dataset, MOST_OF_EXPONENT)
        exponent = choose_exponent(_ndcgs(recommender, shared[key], validation, EXPONENTS))
    return replace(shared[key], exponent=exponent)


def choose_exponent(ndcgs: Floats) -> float:
    """The exponent by the nDCG of each user with each of EXPONENTS, shape (len(EXPONENTS), users).

    A half, or none where that is as good, unless another one is clearly better: on few validation likes the best of
    five differs from one chain to the next.
    """
    means = ndcgs.sum(axis=1)
    start = HALF if means[HALF] > means[0] else 0
    clearly = [at for at in range(len(EXPONENTS)) if _is_ahead(ndcgs[at] - ndcgs[start], "exponent")]
    return EXPONENTS[max(clearly, key=lambda at: means[at], default=start)]


def _is_ahead(gain: Floats, name: str) -> bool:
    """Whether a gain of each user is so sure, on average, as a change of this setting has to be."""
    return len(gain) > 0 and bool(
        gain.mean() > ERRORS_AHEAD.get(name, 0.0) * gain.std() / np.sqrt(max(len(gain) - 1, 1))
    )


def _choose_regression(recommender: Recommender, dataset: Dataset, validation: _Validation) -> ListModel:
    """Choose in turn the ridge, the relative ridge, how much age counts, the input, and how much sessions count.

    That is one of at most 18 settings, of 14 regressions; of equally good ones the earlier is taken. What the family
    says of a like does not matter: the exponent is 0.
    """
    settings, histories = recommender.list_settings(), collect_histories(recommender, dataset, ("train",))
    if settings.half_life is not None and histories.rated.newer is None:
        raise InputError(
            f"parameter 'half_life': ratings with timestamps are needed, and these have none; got "
            f"{settings.half_life:g}, leave it out"
        )
    n_items = len(recommender.knowledge.item_ids)
    is_roomy = n_items <= DENSE_ITEMS and _AT_ONCE * n_items**2 * _MEMORY_A_PAIR <= memory.available() / 2
    at_once = _AT_ONCE if is_roomy else 1  # it changes no number
    counts: dict[tuple[Signal, float], CoCounts] = {}

    def attempt(regression: Regression, solved: ListModel | None = None) -> tuple[Floats, ListModel]:
        """The nDCG of each user, and the model, of the weights of `solved` where only the half-life is another."""
        if solved is not None:
            rated = histories.rated_as(regression.half_life)
            model = replace(solved, regression=regression, rated=rated)
            return _ndcgs(recommender, model, validation, [0.0])[0], model
        counted = regression.signal, regression.session_weight
        found = counts.get(counted)
        if found is None:
            if len(counts) >= at_once:
                counts.clear()  # each may take a GB
            found = counts[counted] = _count(histories, regression, recommender)
        model = _list_model(histories, found, regression, recommender)
        return _ndcgs(recommender, model, validation, [0.0])[0], model

    best = attempt(_first(settings, recommender.knowledge.implicit))
    changes = _changes(settings, histories) if len(validation.users) else {}
    # The limit on threads is the process's: it is set out here, once for all that run at the same time.
    with threads_for(n_items), ThreadPoolExecutor(at_once) as pool:
        for name, values in changes.items():
            before, solved = best[1].regression, best[1] if name == "half_life" else None
            others = [replace(before, **{name: value}) for value in values if value != getattr(before, name)]
            for found in pool.map(partial(attempt, solved=solved), others):
                if _is_ahead(found[0] - best[0], name):  # another input has to be clearly better
                    best = found
    return best[1]


def _first(settings: ListSettings, implicit: bool) -> Regression:
    """Where to begin: with ratings, or without them with every pair alike."""
    return Regression(
        settings.signal or SIGNALS[implicit],
        RIDGES[1] if settings.ridge is None else settings.ridge,
        RELATIVE_RIDGES[0] if settings.relative_ridge is None else settings.relative_ridge,
        SESSION_WEIGHTS[0] if settings.session_weight is None else settings.session_weight,
        settings.half_life,
    )


def _changes(settings: ListSettings, histories: Histories) -> dict[str, Sequence[Any]]:
    """What to try in turn, each on the best so far: the values of one setting after the other."""
    found: dict[str, Sequence[Any]] = {}
    if settings.ridge is None:
        found["ridge"] = RIDGES
    if settings.relative_ridge is None:
        found["relative_ridge"] = RELATIVE_RIDGES
    if settings.half_life is None and histories.rated.newer is not None:
        found["half_life"] = HALF_LIVES
    if settings.signal is None and len(histories.rated.ratings) and np.ptp(histories.rated.ratings):
        found["signal"] = SIGNALS
    if settings.session_weight is None and histories.sessions is not None:
        found["session_weight"] = SESSION_WEIGHTS
    return found


def _validation_of(recommender: Recommender, dataset: Dataset, most: int) -> _Validation:
    """All users learnt from who like something in the validation rows, or evenly spaced ones of more."""
    rows = dataset.validation
    rows = rows[np.flatnonzero(dataset.likes(rows))]
    users = recommender.knowledge.user_codes(dataset.user_ids)[rows.users]
    items = recommender.knowledge.item_codes(dataset.item_ids)[rows.items]
    rated = np.unique(users[users >= 0])
    rated = rated[:: -(-len(rated) // most) or 1]
    row = np.searchsorted(rated, users)
    kept = (row < len(rated)) & (rated[np.minimum(row, len(rated) - 1)] == users) if len(rated) else row < 0
    return _Validation(rated, row[kept].astype(np.int32), items[kept], np.bincount(row[kept], minlength=len(rated)))


def _ndcgs(recommender: Recommender, model: ListModel, validation: _Validation, exponents: Sequence[float]) -> Floats:
    """Normalised DCG of likes at TOP of each user's list by each exponent, shape (exponents, users)."""
    if len(validation.users) == 0:
        return np.zeros((len(exponents), 0))
    top, asked = min(TOP, len(recommender.knowledge.item_ids)), any(exponents)
    pools = _pools(recommender, model, validation, POOL if asked else top, asked)
    found = []
    for exponent in exponents:
        # Items are in ascending order, so that equal scores are ordered by item code, as lists are.
        with np.errstate(invalid="ignore"):  # what may not be listed, times a like probability of 0
            scores = replace(model, exponent=exponent).product(pools.takes, pools.likes)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        found.append(metrics.ndcg(np.take_along_axis(pools.relevant, order, 1), validation.counts))
    return np.array(found)


def _pools(recommender: Recommender, model: ListModel, validation: _Validation, size: int, likes: bool) -> _Pools:
    """The unseen items of highest P(takes), the first factor, and where asked the like probability."""
    from scipy.sparse import csr_matrix

    knowledge, rated, users = recommender.knowledge, model.rated, validation.users
    n_items = len(knowledge.item_ids)
    values = model.regression.in_history(rated.ratings, rated.newer, knowledge.scale, knowledge.like_threshold)
    histories = csr_matrix((values, rated.items, rated.starts), (len(knowledge.user_ids), n_items))[users]
    items, takes = [], []
    step = max(1, _CELLS_AT_A_TIME // n_items)
    for start in range(0, len(users), step):
        some = histories[start : start + step]
        scores = model.takes_many(some)
        scores[np.repeat(np.arange(some.shape[0]), np.diff(some.indptr)), some.indices] = -np.inf
        items.append(best_of_rows(scores, size))
        takes.append(np.take_along_axis(scores, items[-1], 1))
    pool, factor = np.concatenate(items), np.concatenate(takes).astype(np.float64)
    relevant = metrics.hits(pool, validation.rows, validation.items, n_items) & np.isfinite(factor)
    like = np.ones(pool.shape)
    if likes:
        like = recommender.score(np.repeat(users, pool.shape[1]), pool.ravel()).like_probability.reshape(pool.shape)
    return _Pools(pool, factor, like, relevant)
