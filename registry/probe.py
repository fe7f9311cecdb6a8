"""The answers of a version to a few questions, kept from its first evaluation: whoever loads it later compares them.

It tells a version that was altered, or that another library or machine reads otherwise, before it answers users.
"""

import json
from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.models.base.recommender import Recommender
from registry import documents
from registry.versions import Version

_DOCUMENT = "probe.1.json"
_TAG = "probe.1"  # where the release before kept it
_PAIRS = 24
_TOLERANCE = 1e-4  # of the scale's width, and of a probability: processors and libraries round otherwise


def record(version: Version, recommender: Recommender) -> None:
    """Keep a version's answers; where some are kept already, compare them; raises InputError as `check` does."""
    if _kept(version) is not None:
        check(version, recommender)
        return
    documents.keep(version.run_id, _DOCUMENT, {"answers": _answers(recommender)})


def check(version: Version, recommender: Recommender) -> None:
    """Raise InputError, naming the first answer that is another, unless a version answers as it did.

    A version that was never evaluated, or by an earlier release only, has nothing to be compared with.
    """
    low, high = recommender.knowledge.scale
    for said in _kept(version) or ():
        user, item, rating, like = said
        found = recommender.predict(*(np.array([name], object) for name in (user, item)))
        off = max(abs(float(found[0][0]) - rating) / (high - low), abs(float(found[1][0]) - like))
        if not off <= _TOLERANCE:
            raise InputError(
                f"version {version.number} of {version.name!r} does not answer as it did when it was evaluated: user "
                f"{user!r} and item {item!r} had {rating:.4f} and {like:.4f}, now {float(found[0][0]):.4f} and "
                f"{float(found[1][0]):.4f} (rating and probability of a like); train it again"
            )


def _kept(version: Version) -> list[list[Any]] | None:
    if found := documents.find(version.run_id, _DOCUMENT):
        return list(found["answers"])
    return json.loads(version.tags[_TAG]) if _TAG in version.tags else None


def _answers(recommender: Recommender) -> list[list[Any]]:
    """Rows of user, item, rating and probability of a like; users and items from all over the tables."""
    knowledge = recommender.knowledge
    users, items = (
        ids[np.linspace(0, len(ids) - 1, _PAIRS).astype(int)] for ids in (knowledge.user_ids, knowledge.item_ids)
    )
    items = np.roll(items, _PAIRS // 3)
    found = recommender.predict(users, items)
    return [list(row) for row in zip(users.tolist(), items.tolist(), *(part.tolist() for part in found), strict=True)]
