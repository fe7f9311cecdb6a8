"""How far the answers of ONNX graphs are from those of the version, and how fast both are."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.models.base.recommender import Recommender

LIMIT = 1e-5
_PAIRS, _USERS, _TOP = 2000, 50, 10
_REPEATS = 5


def compare_scores(recommender: Recommender, session: Any) -> dict[str, float]:
    """Largest differences of ratings and probabilities over pairs from all over the tables, unknown ones among them.

    Raises:
        InputError: if one is larger than 1e-5.
    """
    random = np.random.default_rng(0)
    knowledge = recommender.knowledge
    users, items = (
        random.integers(-1, len(ids), _PAIRS).astype(np.int64) for ids in (knowledge.user_ids, knowledge.item_ids)
    )
    users[0] = items[1] = -1
    asked = {"user": users, "item": items}
    version = recommender.score(users.astype(np.int32), items.astype(np.int32))
    graph = session.run(None, asked)
    off = [float(np.abs(one - other).max()) for one, other in zip(version, graph, strict=True)]
    _check(max(off), "ratings or probabilities")
    return {
        "onnx_rating_difference": off[0],
        "onnx_like_difference": off[1],
        "onnx_scores_per_second": _PAIRS / _seconds(lambda: session.run(None, asked)),
        "version_scores_per_second": _PAIRS
        / _seconds(lambda: recommender.score(users.astype(np.int32), items.astype(np.int32))),
    }


def compare_lists(recommender: Recommender, session: Any) -> dict[str, float]:
    """Largest difference of scores, and the share of lists with the same items.

    A score is a weight times a power of the probability of a like: its difference is told as a share of the list's
    largest weight, as that of a probability is told as it is.

    Items of equal score but for rounding may change places.

    Raises:
        InputError: if scores differ by more than 1e-5.
    """
    assert recommender.lists
    knowledge = recommender.knowledge
    users = np.unique(np.linspace(0, len(knowledge.user_ids) - 1, _USERS).astype(int))
    asked = []
    for user in users.tolist():
        rated, ratings = recommender.lists.rated.of(user)
        newer = recommender.lists.rated.newer_of(user)
        if newer is not None:
            rated, ratings = rated[np.argsort(-newer)], ratings[np.argsort(-newer)]
        asked.append(
            {
                "user": np.array([user], np.int64),
                "history": rated.astype(np.int64),
                "ratings": ratings.astype(np.float32),
                "n": np.array([_TOP], np.int64),
            }
        )
    version = recommender.recommend(knowledge.user_ids[users], _TOP)
    graph = [session.run(None, one) for one in asked]
    off, same = 0.0, 0
    answers = zip(version.items, version.scores, version.probabilities, graph, strict=True)
    for items, scores, likes, (found, product, _) in answers:
        if len(items) != len(found):
            raise InputError(f"the graph lists {len(found)} items, the version {len(items)}")
        weights = np.abs(scores) / np.maximum(likes, 1e-12) ** recommender.lists.exponent
        off = max(off, float(np.abs(product - scores).max(initial=0) / max(weights.max(initial=0), 1e-12)))
        same += items.tolist() == knowledge.item_ids[found].tolist()
    _check(off, "scores of lists")
    return {
        "onnx_list_difference": off,
        "onnx_same_lists": same / len(users),
        "onnx_lists_per_second": len(users) / _seconds(lambda: [session.run(None, one) for one in asked]),
        "version_lists_per_second": len(users)
        / _seconds(lambda: recommender.recommend(knowledge.user_ids[users], _TOP)),
    }


def _check(off: float, what: str) -> None:
    if not off <= LIMIT:
        raise InputError(f"the graph's {what} differ from the version's by up to {off:.2g}, more than {LIMIT:g}")


def _seconds(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of some repetitions."""
    found = []
    for _ in range(_REPEATS):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return max(min(found), 1e-9)
