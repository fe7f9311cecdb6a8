"""Lists for users, similar items and explanations, from a recommender that carries a list model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats, Ids
from recsys.errors import InputError
from recsys.models.base.capabilities import capabilities
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.lists import (
    History,
    ListModel,
    Policy,
    Recommendations,
    Unknown,
    check_history,
    check_request,
)
from recsys.models.base.ranking import NO_LISTS, POOL, best_items, diversify, note_of

_USERS_AT_A_TIME = 64  # whose like probabilities are computed in one call
_SHOWN = 5


class ListMaker(Protocol):
    """What is needed of a recommender to make lists; this module would import itself by way of the class."""

    family: str
    knowledge: Knowledge
    lists: ListModel | None

    def score(self, users: Codes, items: Codes) -> Any:
        """As `Recommender.score`."""

    def predict(self, user_ids: Ids, item_ids: Ids) -> Any:
        """As `Recommender.predict`."""

    def predictive_std(self, user_ids: Ids, item_ids: Ids) -> Floats | None:
        """As `Recommender.predictive_std`."""

    def fold_in(self, user_ids: Ids, item_ids: Ids, ratings: Floats) -> Any:
        """As `Recommender.fold_in`."""


class SimilarItems(NamedTuple):
    """The items that a history with one item speaks for most: ids and weights, best first."""

    items: Ids
    weights: Floats


@dataclass(frozen=True)
class Explanation:
    """Why an item is in a user's list."""

    items: Ids
    """The items of the history that speak for it, those that carry most first."""
    shares: Floats
    """What part each has of all that speaks for it; together 1."""
    rating: float
    """The expected rating."""
    spread: float
    """The standard deviation of that rating, NaN where the family knows none."""
    like_probability: float


_CodedHistory = tuple[Codes, Array, Array | None]
"""Items, ascending, ratings, and how many of the history are newer, if age counts: each of shape (h,)."""


@dataclass(frozen=True, eq=False)
class _Options:
    n: int
    exclude_seen: bool
    allowed: Flags | None
    diversity: float


@dataclass(frozen=True, eq=False)
class _Request:
    """One user: what is known of them, and the codes of the items from which the list is chosen, ascending."""

    scorer: ListMaker
    user: int  # in the codes of the scorer
    policy: Policy
    pool: Codes
    takes: Floats
    note: str


def list_model(recommender: ListMaker) -> ListModel:
    """The recommender's list model; raises InputError, with the remedy, where it has none."""
    if recommender.lists is None:
        raise InputError(f"family {recommender.family!r}: this version {NO_LISTS}")
    return recommender.lists


def recommend(
    recommender: ListMaker,
    user_ids: Ids,
    n: int,
    history: Sequence[History | None] | None,
    exclude_seen: bool,
    candidates: Ids | None,
    exclude: Ids | None,
    diversity: float,
    unknown: Unknown,
) -> Recommendations:
    """See `Recommender.recommend`."""
    list_model(recommender)  # or the reason why there is none
    check_request(n, diversity, user_ids, history)
    allowed, strange = _allowed(recommender, candidates, exclude, unknown)
    given, ignored = _histories_in_codes(recommender, user_ids, history)
    codes = recommender.knowledge.user_codes(user_ids)
    folded = _fold_in_new_users(recommender, codes, given)
    made = Recommendations([], [], [], [], [], len(strange) + ignored, strange)
    options = _Options(n, exclude_seen, allowed, diversity)
    for start in range(0, len(user_ids), _USERS_AT_A_TIME):
        requests = [
            _prepare(recommender, folded.get(row), int(codes[row]), given.get(row), options)
            for row in range(start, min(start + _USERS_AT_A_TIME, len(user_ids)))
        ]
        _rank(recommender, requests, options, made)
    return made


def _allowed(
    recommender: ListMaker, candidates: Ids | None, exclude: Ids | None, unknown: Unknown
) -> tuple[Flags | None, tuple[str, ...]]:
    """Which items may be listed, shape (n_items,), None for all; and which of these ids are unknown."""
    if candidates is None and exclude is None:
        return None, ()
    knowledge, strange = recommender.knowledge, list[str]()
    allowed = np.full(len(knowledge.item_ids), candidates is None)
    for name, ids in (("candidates", candidates), ("exclude", exclude)):
        if ids is None:
            continue
        codes = knowledge.item_codes(ids)
        wrong = ids[codes < 0].tolist()
        if wrong and unknown == "refuse":
            raise InputError(
                f"parameter '{name}': items of the catalogue are needed, but {len(wrong)} of these {len(ids)} were not "
                f"learnt from: {_shown(wrong)}; leave them out, or pass unknown=ignore"
            )
        strange += wrong
        if name == "candidates" and len(wrong) == len(ids):
            raise InputError(
                f"parameter 'candidates': items of the catalogue are needed, but none of these {len(ids)} was learnt "
                f"from: {_shown(wrong) or 'there is none'}"
            )
        allowed[codes[codes >= 0]] = name == "candidates"
    return allowed, tuple(strange)


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")


def _histories_in_codes(
    recommender: ListMaker, user_ids: Ids, history: Sequence[History | None] | None
) -> tuple[dict[int, _CodedHistory], int]:
    """The given histories by row, in codes; and how many of their ids are unknown."""
    knowledge, given, ignored = recommender.knowledge, dict[int, _CodedHistory](), 0
    aged = list_model(recommender).regression.half_life is not None
    for row, one in enumerate(history or ()):
        if one is None:
            continue
        check_history(one, user_ids[row], knowledge.scale)
        codes = knowledge.item_codes(np.asarray(one.items, object))
        liked = np.full(len(codes), knowledge.scale[1])
        ratings = liked if one.ratings is None else np.asarray(one.ratings, np.float64)
        known = np.flatnonzero(codes >= 0)
        order = np.argsort(codes[known])  # sums do not depend on the order in which a history is given
        newer = len(known) - 1 - order if aged else None
        known = known[order]
        ignored += len(codes) - len(known)
        given[row] = codes[known], ratings[known], newer
    return given, ignored


def _fold_in_new_users(
    recommender: ListMaker, users: Codes, given: dict[int, _CodedHistory]
) -> dict[int, tuple[ListMaker, int]]:
    """By row, who answers for an unknown user with a history, and the user's code there; if the family can fold in."""
    new = [row for row, one in given.items() if users[row] < 0 and len(one[0])]
    if not new or not capabilities(recommender.family).folds_in:
        return {}
    # Under names of their own: a new user may be asked for twice, with two histories.
    names = np.array([f"\0{row}" for row in new], object)
    told = [_oldest_first(given[row]) for row in new]
    sizes = [len(items) for items, _ in told]
    items = recommender.knowledge.item_ids[np.concatenate([items for items, _ in told])]
    ratings = np.concatenate([ratings for _, ratings in told])
    folded = recommender.fold_in(np.repeat(names, sizes), items, ratings).recommender
    return {row: (folded, int(code)) for row, code in zip(new, folded.knowledge.user_codes(names), strict=True)}


def _oldest_first(history: _CodedHistory) -> tuple[Codes, Array]:
    """Items and ratings in the order in which they came, if age counts; else as they are."""
    items, ratings, newer = history
    order = slice(None) if newer is None else np.argsort(-newer)
    return items[order], ratings[order]


def _prepare(
    recommender: ListMaker,
    folded: tuple[ListMaker, int] | None,
    user: int,
    given: _CodedHistory | None,
    options: _Options,
) -> _Request:
    model, n, allowed = list_model(recommender), options.n, options.allowed
    knowledge = recommender.knowledge
    learnt = *model.rated.of(user), model.rated.newer_of(user)
    items, ratings, newer = learnt if given is None else given
    values = model.regression.in_history(ratings, newer, knowledge.scale, knowledge.like_threshold)
    told = bool(np.any(values))
    takes = model.takes(items, values) if told else model.popularity
    policy: Policy = "popular" if not told else "personal" if user >= 0 else "history"
    if options.exclude_seen and (len(items) or len(learnt[0])):
        allowed = np.ones(len(takes), bool) if allowed is None else allowed.copy()
        allowed[items] = False
        allowed[learnt[0]] = False
    size = n if model.exponent == 0 and options.diversity == 0 else max(n, POOL)
    pool = np.sort(best_items(takes, size, allowed))
    note = note_of(len(pool), n, options.exclude_seen)
    scorer, user = folded or (recommender, user)
    return _Request(scorer, user, policy, pool, takes[pool], note)


def _rank(recommender: ListMaker, requests: Sequence[_Request], options: _Options, made: Recommendations) -> None:
    """Rank the pools of some users and append their lists to `made`."""
    model, n, diversity = list_model(recommender), options.n, options.diversity
    likes = _like_probabilities(requests)
    ids = recommender.knowledge.item_ids
    for request, like in zip(requests, likes, strict=True):
        product = model.product(request.takes, like)
        if diversity:
            order = best_items(product, len(product))
            close = model.item_to_item.similarities(request.pool[order])
            order = order[diversify(product[order], close, n, diversity)]
        else:
            order = best_items(product, n)
        made.items.append(ids[request.pool[order]])
        made.scores.append(product[order])
        made.probabilities.append(like[order])
        made.policy.append(request.policy)
        made.notes.append(request.note)


def _like_probabilities(requests: Sequence[_Request]) -> list[Floats]:
    """Of every user's pool, in as few calls as there are recommenders that answer."""
    found: list[Floats] = [np.empty(0)] * len(requests)
    scorers = {id(request.scorer): request.scorer for request in requests}
    for scorer in scorers.values():
        mine = [number for number, request in enumerate(requests) if request.scorer is scorer]
        sizes = [len(requests[number].pool) for number in mine]
        users = [requests[number].user for number in mine]
        pools = np.concatenate([requests[number].pool for number in mine])
        like = scorer.score(np.repeat(np.array(users, np.int32), sizes), pools).like_probability
        for number, part in zip(mine, np.split(like, np.cumsum(sizes)[:-1]), strict=True):
            found[number] = part
    return found


def similar_items(recommender: ListMaker, item_ids: Ids, n: int) -> list[SimilarItems]:
    """See `Recommender.similar_items`."""
    model = list_model(recommender)
    check_request(n, 0, item_ids, None)
    codes = _known_items(recommender, item_ids)
    found = []
    for code in codes:
        weights = model.takes(np.array([code]), np.ones(1))
        allowed = np.ones(len(weights), bool)
        allowed[code] = False
        best = best_items(weights, n, allowed)
        found.append(SimilarItems(recommender.knowledge.item_ids[best], weights[best]))
    return found


def explain(recommender: ListMaker, user_id: str, item_id: str, history: History | None) -> Explanation:
    """See `Recommender.explain`."""
    model = list_model(recommender)
    knowledge = recommender.knowledge
    users, items = np.array([user_id], object), np.array([item_id], object)
    item = _known_items(recommender, items)[0]
    given, _ = _histories_in_codes(recommender, users, None if history is None else [history])
    codes = knowledge.user_codes(users)
    scorer = recommender
    known = int(codes[0])
    rated, ratings, newer = given.get(0, (*model.rated.of(known), model.rated.newer_of(known)))
    for scorer, code in _fold_in_new_users(recommender, codes, given).values():
        users = scorer.knowledge.user_ids[code : code + 1]
    values = model.regression.in_history(ratings, newer, knowledge.scale, knowledge.like_threshold)
    added = model.item_to_item.contributions(rated, values, int(item))
    order = np.argsort(-added, kind="stable")
    order = order[added[order] > 0]
    rating, like = scorer.predict(users, items)
    spread = scorer.predictive_std(users, items)
    return Explanation(
        knowledge.item_ids[rated[order]],
        added[order] / added[order].sum() if len(order) else np.empty(0),
        float(rating[0]),
        float("nan") if spread is None else float(spread[0]),
        float(like[0]),
    )


def _known_items(recommender: ListMaker, item_ids: Ids) -> Codes:
    codes = recommender.knowledge.item_codes(item_ids)
    if (codes < 0).any():
        unknown = item_ids[codes < 0].tolist()
        raise InputError(
            f"items of the catalogue are needed, but {len(unknown)} of these were not learnt from: {_shown(unknown)}"
        )
    return codes
