"""How well items that users take are told from those they never take: the measures where there are no ratings.

AUC is here the probability that a pair held out is ranked above a pair never taken: over the whole catalogue, those of
one user with each other (`auc_per_user`, the mean over users) and all pairs of all users together (`auc`). Ties count
half. It is counted, not estimated from drawn pairs; of more users than `MOST_USERS`, or of a large catalogue, some
users are drawn, and all pairs of theirs counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.arrays import Array, Codes, Flags, Floats, Ids
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, join
from recsys.errors import InputError
from recsys.evaluation.bootstrap import draw_users
from recsys.models.base.recommender import Recommender

MOST_USERS = 10_000
_MOST_PAIRS = 1 << 28  # users times items of the catalogue
_FEWEST_USERS = 500
_PAIRS_AT_A_TIME = 1 << 20
_BINS = 1_000  # of scores, for the replicates


@dataclass(frozen=True, eq=False)
class TakingEvaluation:
    """The measures of some users' pairs, and from what their replicates are made."""

    users: Codes
    """(u,) the users measured, positions in the dataset's ids."""
    auc: float
    user_auc: Floats
    """(u,) NaN for a user to whom no item is left that they never took."""
    expected: float
    """How many pairs are taken by the probabilities, over how many are."""
    _held_out: Array  # (u, bins + 1): each user's pairs by their score
    _never_taken: Array  # likewise

    @property
    def metrics(self) -> dict[str, float]:
        """By the names they are logged under."""
        return {"auc": self.auc, "expected_takes": self.expected, "measured_users": float(len(self.users))}

    def replicates(self, user_ids: Ids, test_digest: str) -> tuple[Floats, Floats]:
        """Bootstrap replicates over users of `auc` and of `auc_per_user`, as of `recsys.evaluation.bootstrap`.

        Those of `auc` are computed from scores in bins, and moved to the exact value.
        """
        held_out, others = self._held_out.astype(np.float32), self._never_taken.astype(np.float32)
        centre = float(_binned_auc(held_out.sum(axis=0)[:, None], others.sum(axis=0)[:, None])[0])
        defined = np.isfinite(self.user_auc)
        values = np.where(defined, self.user_auc, 0.0)
        found: list[Floats] = []
        of_users: list[Floats] = []
        for weights in draw_users(self.users, user_ids, len(self.users), test_digest):
            found.append(_binned_auc(held_out.T @ weights, others.T @ weights) - centre + self.auc)
            with np.errstate(invalid="ignore"):
                of_users.append(values @ weights / (defined @ weights))
        return np.concatenate(found), np.concatenate(of_users)


def _binned_auc(held_out: Array, others: Array) -> Floats:
    """The AUC of each column of counts by bin, ascending: (bins, k) each; ties within a bin count half."""
    below = np.cumsum(others, axis=0, dtype=np.float64) - others / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((held_out * below).sum(axis=0) / held_out.sum(axis=0) / others.sum(axis=0), np.float64)


def evaluate_taking(
    recommender: Recommender, dataset: Dataset, part: Literal["validation", "test"], seed: int
) -> TakingEvaluation:
    """Measure a recommender on all pairs of a part's users, less those taken in the rows learnt from.

    Raises:
        InputError: if a probability is outside [0, 1].
    """
    asked = _ask(dataset, part, seed)
    rows = [scores[held_out] for scores, held_out, _ in _scored(recommender, dataset, asked)]
    taken = np.sort(np.concatenate(rows))
    n = len(taken)
    below = np.zeros(n + 1)  # pairs never taken, by how many of the taken ones do not score higher
    tied = np.zeros(n + 1)  # the same, by how many score lower
    edges = np.unique(np.quantile(taken, np.linspace(0, 1, _BINS + 1)[1:-1]))
    binned: list[list[Array]] = [[], []]
    user_auc, expected = [], 0.0
    for scores, held_out, allowed in _scored(recommender, dataset, asked):
        never = allowed & ~held_out
        below += np.bincount(np.searchsorted(taken, scores[never], "right"), minlength=n + 1)
        tied += np.bincount(np.searchsorted(taken, scores[never], "left"), minlength=n + 1)
        for row in range(len(scores)):
            mine, others = np.sort(scores[row][held_out[row]]), scores[row][never[row]]
            user_auc.append(_auc(mine, others))
            expected += float(mine.sum() + others.sum())
            for counts, values in zip(binned, (mine, others), strict=True):
                counts.append(np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1))
    total = below.sum()
    above = n - np.arange(n + 1)
    auc = float((below @ above + tied @ above) / 2 / (n * total)) if n and total else float("nan")
    return TakingEvaluation(
        asked.users, auc, np.array(user_auc), expected / max(n, 1), np.array(binned[0]), np.array(binned[1])
    )


def _auc(mine: Floats, others: Floats) -> float:
    if len(others) == 0:
        return float("nan")
    ranks = np.searchsorted(mine, others, "left") + np.searchsorted(mine, others, "right")
    return float(1 - ranks.sum() / 2 / (len(mine) * len(others)))


@dataclass(frozen=True, eq=False)
class _Question:
    """Whose pairs are measured, what they took in the part, and what before: users are positions in `users`."""

    users: Codes
    wanted: Interactions
    learnt: Interactions


def _ask(dataset: Dataset, part: Literal["validation", "test"], seed: int) -> _Question:
    rows: Interactions = getattr(dataset, part)
    users = np.unique(rows.users)
    most = min(MOST_USERS, max(_FEWEST_USERS, _MOST_PAIRS // len(dataset.item_ids)))
    if len(users) > most:
        by_id = users[np.argsort(dataset.user_ids[users])]  # so that who is drawn does not depend on the codes
        users = np.sort(np.random.default_rng(seed).choice(by_id, most, replace=False))
    row_of = np.full(len(dataset.user_ids), -1)
    row_of[users] = np.arange(len(users))

    def of_users(block: Interactions) -> Interactions:
        mine = block[np.flatnonzero(row_of[block.users] >= 0)]
        return Interactions(row_of[mine.users], mine.items, mine.ratings)

    before = ("train",) if part == "validation" else ("train", "validation")
    learnt = join([of_users(block) for name in before for block in dataset.blocks(name)])
    return _Question(users, of_users(rows), learnt)


def _scored(recommender: Recommender, dataset: Dataset, asked: _Question) -> Iterator[tuple[Floats, Flags, Flags]]:
    """Some users at a time: probabilities of all items, which are held out, which were not taken before: (users, n)."""
    knowledge, n_items = recommender.knowledge, len(dataset.item_ids)
    users = knowledge.user_codes(dataset.user_ids)[asked.users]
    items = knowledge.item_codes(dataset.item_ids)
    step = max(1, _PAIRS_AT_A_TIME // n_items)
    for start in range(0, len(users), step):
        some = users[start : start + step]
        scores = recommender.score(np.repeat(some, n_items), np.tile(items, len(some))).like_probability
        if not (np.isfinite(scores) & (scores >= 0) & (scores <= 1)).all():
            raise InputError(f"{recommender.family}: probabilities from 0 to 1 are needed; train the version again")
        shape = len(some), n_items
        held_out, allowed = np.zeros(shape, bool), np.ones(shape, bool)
        for rows, table, value in ((asked.wanted, held_out, True), (asked.learnt, allowed, False)):
            inside = (rows.users >= start) & (rows.users < start + len(some))
            table[rows.users[inside] - start, rows.items[inside]] = value
        yield scores.reshape(shape), held_out, allowed
