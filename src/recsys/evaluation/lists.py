"""How good lists are: of every user who likes something in the rows asked about, out of the whole catalogue.

A version that makes lists is asked for them as a server asks, users unknown to it by their history. Another
recommender ranks all items by the probability of a like. What a user rated in the rows to learn from is never listed,
and of equal scores the lower item code, which is codepoint order of the ids, goes first: in both ways of ranking.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from recsys import metrics
from recsys.arrays import Array, Codes, Flags, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, join
from recsys.data.vocabulary import Vocabulary
from recsys.models.base.lists import History
from recsys.models.base.ranking import best_of_rows
from recsys.models.base.recommender import Recommender

TOP, LONG = 10, 20
MOST_RANKED_USERS = 10_000  # of more users with a liked test item, this many are drawn, seeded
_MOST_RANKED_PAIRS = 1 << 25  # users times items of the catalogue; fewer users of a larger one
_FEWEST_RANKED_USERS = 500
_MOST_COMPARED_LISTS = 1_000  # whose items are compared with each other
_PAIRS_AT_A_TIME = 1 << 19

AVERAGED = ("ndcg_at_10", "recall_at_10", "precision_at_10", "map_at_10", "mrr_at_10", "recall_at_20")
"""The measures that are means over users."""
MEASURES = (*AVERAGED, "coverage_at_10", "novelty_at_10", "gini_at_10", "diversity_at_10")
"""All measures of lists, by their names among the metrics."""


@dataclass(frozen=True, eq=False)
class ListEvaluation:
    """Measures of lists.

    `metrics` holds NaN for what does not exist on these rows. `errors` has the standard errors of the means over users.
    """

    users: Codes
    """(u,) the users asked about, positions in the dataset's ids."""
    ndcg: Floats
    """(u,) nDCG at 10 of each."""
    metrics: dict[str, float]
    errors: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Question:
    """Who is asked about, what they like, and what they rated before; positions in the dataset's tables of ids."""

    users: Codes  # (u,)
    rows: Codes  # (n,) whose each relevant item is, a position in `users`
    items: Codes  # (n,)
    counts: Array  # (u,) relevant items of each
    learnt: Interactions  # rated before, sorted by user, the newest last; its users are positions in `users`
    raters: Codes  # (m,) of all rows before, and
    rated: Codes  # (m,) the items


def evaluate_lists(
    recommender: Recommender, dataset: Dataset, part: Literal["validation", "test"], seed: int, diversity: float = 0.0
) -> ListEvaluation:
    """Measure the lists for all users who like something in a part of the dataset, or for some of more, drawn.

    Args:
        diversity: as of `Recommender.recommend`; only of versions that make lists.
    """
    asked = _ask(dataset, part, seed)
    if len(asked.users) == 0:
        undefined = dict.fromkeys(MEASURES, float("nan")) | {"ranked_users": 0.0}
        return ListEvaluation(asked.users, np.empty(0), undefined, {})
    if recommender.lists is not None:
        lists = _listed(recommender, dataset, asked, diversity)
    else:
        lists = _ranked(recommender, dataset, asked)
    n_items = len(dataset.item_ids)
    relevant = metrics.hits(lists, asked.rows, asked.items, n_items)
    by_user = _by_user(relevant, asked.counts)
    values = {name: float(of_users.mean()) for name, of_users in by_user.items()}
    values |= _of_all_lists(lists[:, :TOP], asked, n_items, len(dataset.user_ids))
    root = np.sqrt(max(len(asked.users) - 1, 1))
    errors = {name: float(of_users.std() / root) for name, of_users in by_user.items()}
    values |= {"ndcg_at_10_error": errors["ndcg_at_10"], "ranked_users": len(asked.users)}
    return ListEvaluation(asked.users, by_user["ndcg_at_10"], values, errors)


def _by_user(relevant: Flags, counts: Array) -> dict[str, Floats]:
    top = relevant[:, :TOP]
    return {
        "ndcg_at_10": metrics.ndcg(top, counts),
        "recall_at_10": metrics.recall(top, counts),
        "precision_at_10": metrics.precision(top),
        "map_at_10": metrics.average_precision(top, counts),
        "mrr_at_10": metrics.reciprocal_rank(top),
        "recall_at_20": metrics.recall(relevant, counts),
    }


def _of_all_lists(lists: Codes, asked: _Question, n_items: int, n_users: int) -> dict[str, float]:
    from scipy.sparse import csr_matrix

    shown = lists[lists >= 0]
    if len(shown) == 0:
        return dict.fromkeys(MEASURES[len(AVERAGED) :], float("nan"))
    compared = lists[:: -(-len(lists) // _MOST_COMPARED_LISTS)]
    rows = np.flatnonzero(np.isin(asked.rated, compared))
    pairs = asked.raters[rows], asked.rated[rows]
    rated = csr_matrix((np.ones(len(rows), np.float32), pairs), (n_users, n_items))
    return {
        "coverage_at_10": metrics.coverage(shown, n_items),
        "novelty_at_10": _mean(metrics.novelty(lists, np.bincount(asked.rated, minlength=n_items), n_users)),
        "gini_at_10": metrics.gini(shown, n_items),
        "diversity_at_10": _mean(metrics.intra_list_diversity(compared, rated)),
    }


def _mean(values: Floats) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")


@lru_cache(maxsize=2)  # the same for every recommender measured on the dataset, and on the newest of its rows
def _ask(dataset: Dataset, part: Literal["validation", "test"], seed: int) -> _Question:
    rows: Interactions = getattr(dataset, part)
    likes = rows[np.flatnonzero(dataset.likes(rows))]
    users, n_items = np.unique(likes.users), len(dataset.item_ids)
    most = min(MOST_RANKED_USERS, max(_FEWEST_RANKED_USERS, _MOST_RANKED_PAIRS // n_items))
    if len(users) > most:
        by_id = users[np.argsort(dataset.user_ids[users])]  # so that who is drawn does not depend on the codes
        users = np.sort(np.random.default_rng(seed).choice(by_id, most, replace=False))
    row_of = np.full(len(dataset.user_ids), -1)
    row_of[users] = np.arange(len(users))
    likes = likes[np.flatnonzero(row_of[likes.users] >= 0)]
    pieces, pairs = [], []
    for name in ("train",) if part == "validation" else ("train", "validation"):
        for block in dataset.blocks(name):
            pairs.append((block.users, block.items))
            mine = block[np.flatnonzero(row_of[block.users] >= 0)]
            pieces.append(Interactions(row_of[mine.users], mine.items, mine.ratings, mine.timestamps))
    learnt = join(pieces)
    keys = (learnt.users,) if learnt.timestamps is None else (learnt.timestamps, learnt.users)
    learnt = learnt[np.lexsort(keys)]
    raters, rated = (np.concatenate(side) for side in zip(*pairs, strict=True))
    whose = row_of[likes.users]
    counts = np.bincount(whose, minlength=len(users))
    return _Question(users, whose, likes.items, counts, learnt, raters, rated)


def _listed(recommender: Recommender, dataset: Dataset, asked: _Question, diversity: float) -> Codes:
    """The lists that a version makes: shape (users, LONG)."""
    top = min(LONG, len(dataset.item_ids))
    history = _histories(recommender, dataset, asked)
    made = recommender.recommend(dataset.user_ids[asked.users], top, history=history, diversity=diversity)
    sizes = np.array([len(items) for items in made.items])
    lists = np.full((len(sizes), top), -1, np.int32)
    lists[np.arange(top) < sizes[:, None]] = Vocabulary(dataset.item_ids).codes(np.concatenate(made.items))
    return lists


def _histories(recommender: Recommender, dataset: Dataset, asked: _Question) -> list[History | None]:
    """What users rated before, where the version has not learnt from just as many of their ratings."""
    assert recommender.lists is not None
    starts = np.searchsorted(asked.learnt.users, np.arange(len(asked.users) + 1))
    codes = recommender.knowledge.user_codes(dataset.user_ids[asked.users])
    known = np.where(codes >= 0, np.diff(recommender.lists.rated.starts)[codes], 0)
    found: list[History | None] = []
    for start, end, count in zip(starts[:-1], starts[1:], known, strict=True):
        if count == end - start:
            found.append(None)
            continue
        rows = asked.learnt[start:end]
        ratings = np.clip(rows.ratings, *recommender.knowledge.scale)
        found.append(History(dataset.item_ids[rows.items], ratings))
    return found


def _ranked(recommender: Recommender, dataset: Dataset, asked: _Question) -> Codes:
    """All known items ranked by the probability of a like: shape (users, LONG).

    An item that nobody rated in the rows learnt from is not shown: its fallback says nothing about it, and may be on
    another scale than the scores of the others.
    """
    n_items = len(dataset.item_ids)
    top = min(LONG, n_items)
    users = recommender.knowledge.user_codes(dataset.user_ids[asked.users])
    items = recommender.knowledge.item_codes(dataset.item_ids)
    lists = np.empty((len(users), top), np.int32)
    step = max(1, _PAIRS_AT_A_TIME // n_items)
    for start in range(0, len(users), step):
        batch = users[start : start + step]
        pairs = np.repeat(batch, n_items), np.tile(items, len(batch))
        scores = recommender.score(*pairs).like_probability.reshape(len(batch), n_items)
        first, last = np.searchsorted(asked.learnt.users, [start, start + len(batch)])
        seen = asked.learnt[first:last]
        scores[seen.users - start, seen.items] = -np.inf
        scores[:, items < 0] = -np.inf
        best = best_of_rows(scores, top)
        found = np.take_along_axis(scores, best, 1)
        order = np.argsort(-found, axis=1, kind="stable")
        # Who has rated nearly everything gets a shorter list.
        lists[start : start + step] = np.take_along_axis(np.where(np.isfinite(found), best, -1), order, 1)
    return lists
