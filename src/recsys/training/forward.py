"""The newest ratings held back: a recommender that learnt from those before, to be measured on what came next.

It chooses by validation rows that are as old as what it learns from, and it learns from none of the newest. It is
measured only, and never goes into use (docs/decisions/0020-forward.md).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from recsys.data.dataset import Dataset
from recsys.models.base.recommender import Recommender


@dataclass(frozen=True, eq=False)
class ForwardFit:
    """A recommender, and the rows: `train` and `validation` are those before a moment, `test` those from it on."""

    recommender: Recommender
    dataset: Dataset


@lru_cache(maxsize=1)  # once for all families that are trained on the dataset
def hold_back_newest(dataset: Dataset) -> Dataset | None:
    """The training and validation rows anew: the newest become the test part, as large a share as the test rows have.

    The test rows of the dataset are in no part. Rows of one moment stay together. None where the rows have no
    timestamps, or too few different ones for each part to have a row.
    """
    train, validation = dataset.train, dataset.validation
    if train.timestamps is None or validation.timestamps is None:
        return None
    times = np.concatenate([train.timestamps, validation.timestamps])
    place = min(int(len(times) * (1 - dataset.preparation.test_size)), len(times) - 1)
    moment = np.partition(times, place)[place]
    older = train.timestamps < moment, validation.timestamps < moment
    newest = train[np.flatnonzero(~older[0])].joined(validation[np.flatnonzero(~older[1])])
    before = train[np.flatnonzero(older[0])], validation[np.flatnonzero(older[1])]
    if not all(len(part) for part in before):
        return None
    return dataset.holding(train=before[0], validation=before[1], test=newest)
