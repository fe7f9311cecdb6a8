"""Folding in: what is known once users bring ratings, without training again."""

from dataclasses import replace

import numpy as np

from recsys.arrays import Array, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.biases import DAMPING
from recsys.models.base.knowledge import Knowledge, sorted_pairs


def check_ratings(user_ids: Ids, item_ids: Ids, ratings: Floats, scale: tuple[float, float]) -> None:
    """Refuse columns of unequal length, and ratings outside the scale; raises InputError."""
    if not len(user_ids) == len(item_ids) == len(ratings):
        raise InputError(
            f"as many users, items and ratings are needed, got {len(user_ids)}, {len(item_ids)} and {len(ratings)}"
        )
    low, high = scale
    wrong = np.flatnonzero(~((ratings >= low) & (ratings <= high)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"rating {row} (user {user_ids[row]!r}, item {item_ids[row]!r}): expected a number from {low:g} to "
            f"{high:g}, the scale learnt from, got {ratings[row]:g}"
        )


def newest_of_known_items(knowledge: Knowledge, user_ids: Ids, item_ids: Ids) -> tuple[Array, int]:
    """The rows to fold in, the last of each pair of user and item, in order; and how many are of unknown items."""
    items = knowledge.item_codes(item_ids)
    known = np.flatnonzero(items >= 0)
    pairs = {(user_ids[row], items[row]): row for row in known}
    return np.sort(np.fromiter(pairs.values(), np.int64, len(pairs))), len(items) - len(known)


def fold_into_knowledge(
    knowledge: Knowledge, user_ids: Ids, item_ids: Ids, ratings: Floats
) -> tuple[Knowledge, Interactions]:
    """Knowledge of these users from these ratings, each of shape (n,), and the ratings in its codes.

    A user's ratings replace what was known of a user of that id.
    """
    grown, users = _add_users(knowledge, user_ids)
    rows = Interactions(users, grown.item_codes(item_ids), ratings)
    return _learn(grown, rows), rows


def _add_users(knowledge: Knowledge, user_ids: Ids) -> tuple[Knowledge, Array]:
    """Knowledge in which every user has a code, new ones behind the old, and the codes."""
    new = np.unique(user_ids[knowledge.user_codes(user_ids) < 0].astype(str)).astype(object)
    biases = replace(knowledge.biases, user=np.append(knowledge.biases.user, np.zeros(len(new))))
    grown = replace(knowledge, user_ids=np.append(knowledge.user_ids, new), biases=biases)
    return grown, grown.user_codes(user_ids)


def _learn(knowledge: Knowledge, rows: Interactions) -> Knowledge:
    """Knowledge with these users' seen items and biases, and none of what was known of them before."""
    n = len(knowledge.user_ids)
    counts = np.bincount(rows.users, minlength=n)
    rest = rows.ratings - knowledge.biases.mean - knowledge.biases.item[rows.items]
    bias = np.bincount(rows.users, weights=rest, minlength=n) / (counts + DAMPING)
    others = knowledge.seen[counts[knowledge.seen[:, 0]] == 0]
    seen = np.concatenate((others, sorted_pairs(rows)))
    biases = replace(knowledge.biases, user=np.where(counts > 0, bias, knowledge.biases.user))
    return replace(knowledge, biases=biases, seen=seen[np.argsort(seen[:, 0], kind="stable")])
