"""Folding in: users who bring ratings are known to a trained recommender without training it again."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recsys import families
from recsys.arrays import Array, Floats, Ids
from recsys.biases import DAMPING
from recsys.dataset import Interactions
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.recommender import Knowledge, Recommender


@dataclass(frozen=True, eq=False)
class Folded:
    """A recommender that knows the users, and how many of their ratings were of items it does not know."""

    recommender: "Recommender"
    ignored: int


def fold_in(recommender: "Recommender", user_ids: Ids, item_ids: Ids, ratings: Floats) -> Folded:
    """A recommender that predicts for the users of these ratings, each of shape (n,), as for those it learnt from.

    A user's ratings replace what was known of a user of that id; the last of several ratings of an item counts. Whoever
    has rated unknown items only stays as before.

    Raises:
        InputError: if the family cannot do it, or a rating is outside the scale.
    """
    module = families.family_module(recommender.family)
    solve = getattr(module, "fold_in", None)
    if solve is None:
        able = [name for name in families.family_names() if hasattr(families.family_module(name), "fold_in")]
        raise InputError(
            f"family {recommender.family!r}: it cannot fold in ratings, {', '.join(able)} can; train one of these, or "
            "train again with the ratings"
        )
    low, high = recommender.knowledge.scale
    ratings = np.asarray(ratings, np.float64)
    if not len(user_ids) == len(item_ids) == len(ratings):
        raise InputError(
            f"as many users, items and ratings are needed, got {len(user_ids)}, {len(item_ids)} and {len(ratings)}"
        )
    wrong = np.flatnonzero(~((ratings >= low) & (ratings <= high)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"rating {row} (user {user_ids[row]!r}, item {item_ids[row]!r}): expected a number from {low:g} to "
            f"{high:g}, the scale learnt from, got {ratings[row]:g}"
        )
    items = recommender.knowledge.item_codes(item_ids)
    known = np.flatnonzero(items >= 0)
    pairs = {(user_ids[row], items[row]): row for row in known}  # of a pair's rows the last one
    kept = np.fromiter(pairs.values(), np.int64, len(pairs))
    if len(kept) == 0:
        return Folded(recommender, len(ratings))
    knowledge, users = _add_users(recommender.knowledge, user_ids[kept])
    rows = Interactions(users, items[kept], ratings[kept])
    return Folded(solve(recommender, _learn(knowledge, rows), rows), len(ratings) - len(known))


def _add_users(knowledge: "Knowledge", user_ids: Ids) -> tuple["Knowledge", Array]:
    """Knowledge in which every user has a code, new ones behind the old, and the codes."""
    new = np.unique(user_ids[knowledge.user_codes(user_ids) < 0].astype(str)).astype(object)
    biases = replace(knowledge.biases, user=np.append(knowledge.biases.user, np.zeros(len(new))))
    grown = replace(knowledge, user_ids=np.append(knowledge.user_ids, new), biases=biases)
    return grown, grown.user_codes(user_ids)


def _learn(knowledge: "Knowledge", rows: Interactions) -> "Knowledge":
    """Knowledge with these users' seen items and biases, and none of what was known of them before."""
    from recsys.recommender import sorted_pairs

    n = len(knowledge.user_ids)
    counts = np.bincount(rows.users, minlength=n)
    rest = rows.ratings - knowledge.biases.mean - knowledge.biases.item[rows.items]
    bias = np.bincount(rows.users, weights=rest, minlength=n) / (counts + DAMPING)
    others = knowledge.seen[counts[knowledge.seen[:, 0]] == 0]
    seen = np.concatenate((others, sorted_pairs(rows)))
    biases = replace(knowledge.biases, user=np.where(counts > 0, bias, knowledge.biases.user))
    return replace(knowledge, biases=biases, seen=seen[np.argsort(seen[:, 0], kind="stable")])
