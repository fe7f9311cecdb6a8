"""Fit tasks: what a recommender knows beside its own weights, and rows to fit it to, learnt from blocks of rows.

The blocks are either all rows in memory, as one block, or the row groups of files that are read one at a time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from recsys.arrays import Codes, Flags, Ids
from recsys.data.cleaning import TAKEN
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.data.loader import RowStream
from recsys.models.base.biases import Biases, learn_biases, learn_biases_from
from recsys.models.base.calibration import calibrate
from recsys.models.base.family import Memo
from recsys.models.base.knowledge import Knowledge

Rows = TypeVar("Rows", Interactions, RowStream)
"""What a family's `fit` takes: rows in memory, or rows that it reads from disk."""


@dataclass(frozen=True, eq=False)
class FitTask(Generic[Rows]):
    """One fit: the rows to learn from, in the codes of `knowledge`; to choose by, validation rows."""

    knowledge: Knowledge
    rows: Rows
    validation: Interactions | None
    memo: Memo | None = None
    """Given where several trainings fit to these rows."""


@dataclass(frozen=True, eq=False)
class Recoding:
    """New codes for the users and items that occur in some rows; their new code is the position of their id here."""

    user_ids: Ids
    item_ids: Ids
    user_codes: Codes
    """For each of the dataset's users the new code, -1 for one that does not occur: (users of the dataset,)."""
    item_codes: Codes
    """Likewise: (items of the dataset,)."""

    def apply(self, rows: Interactions) -> Interactions:
        """Rows of the dataset in the new codes."""
        return replace(rows, users=self.user_codes[rows.users], items=self.item_codes[rows.items])


@dataclass(frozen=True, eq=False)
class RecodedRows(Generic[Rows]):
    """The rows to learn from, in new codes."""

    rows: Rows
    blocks: Callable[[], Iterable[Interactions]]
    """The same rows in blocks; called once for each pass over them."""
    seen: Codes
    """Their (user, item) codes, sorted by user: (n, 2)."""


def make_fit_task(
    dataset: Dataset,
    blocks: Callable[[], Iterable[Interactions]],
    recode: Callable[[Recoding], RecodedRows[Rows]],
    *,
    validation: Interactions | None = None,
    first: Knowledge | None = None,
) -> FitTask[Rows]:
    """Learn what is known of the users and items in some rows, and of no others.

    Args:
        dataset: where the rows are from.
        blocks: the rows to learn from, in the dataset's codes.
        recode: gives the same rows in new codes.
        validation: rows, in the dataset's codes, to choose by and to calibrate probabilities on.
        first: in place of `validation`, once the rows to learn from hold those: its calibration is kept.
    """
    recoding = _recoding_of(dataset, blocks())
    recoded = recode(recoding)
    sizes = len(recoding.user_ids), len(recoding.item_ids)
    if dataset.implicit:  # all are rated alike
        biases = Biases(TAKEN, np.zeros(sizes[0]), np.zeros(sizes[1]))
    elif isinstance(recoded.rows, Interactions):
        biases = learn_biases(recoded.rows.users, recoded.rows.items, recoded.rows.ratings, *sizes)
    else:
        biases = learn_biases_from(lambda: ((b.users, b.items, b.ratings) for b in recoded.blocks()), *sizes)
    if validation is not None:
        validation = recoding.apply(validation)
        predicted = biases.rating(validation.users, validation.items)
        calibration = calibrate(predicted, dataset.likes(validation))
    else:
        assert first is not None
        calibration = first.calibration
    knowledge = Knowledge(
        user_ids=recoding.user_ids,
        item_ids=recoding.item_ids,
        seen=recoded.seen,
        scale=dataset.scale,
        like_threshold=dataset.like_threshold,
        biases=biases,
        calibration=calibration,
        implicit=dataset.implicit,
    )
    return FitTask(knowledge, recoded.rows, validation)


def _recoding_of(dataset: Dataset, blocks: Iterable[Interactions]) -> Recoding:
    users, items = np.zeros(len(dataset.user_ids), bool), np.zeros(len(dataset.item_ids), bool)
    for block in blocks:
        users[block.users] = items[block.items] = True
    return Recoding(dataset.user_ids[users], dataset.item_ids[items], _new_codes(users), _new_codes(items))


def _new_codes(present: Flags) -> Codes:
    return np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
