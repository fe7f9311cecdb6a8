"""myFM: a factorization machine on one-hot users and items, Gibbs-sampled in C++."""

from typing import Any

import myfm
import numpy as np
from scipy import sparse


def load(rows: Any) -> Any:
    """The one-hot table with what encodes other rows, and the ratings."""
    sides = np.unique(rows.users), np.unique(rows.items)
    return sides, encode(rows, sides), rows.ratings


def encode(rows: Any, sides: Any) -> Any:
    """One-hot rows; an unknown user or item is a row without that entry."""
    blocks = []
    for ids, known in zip((rows.users, rows.items), sides, strict=True):
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found = np.flatnonzero(known[at] == ids)
        shape = len(ids), len(known)
        blocks.append(sparse.csr_matrix((np.ones(len(found)), (found, at[found])), shape=shape))
    return sparse.hstack(blocks, format="csr")


def fit(data: Any, settings: dict[str, Any], seed: int) -> Any:
    """Users and items are groups of their own, each with its hyperparameters."""
    sides, table, ratings = data
    model = myfm.MyFMGibbsRegressor(rank=settings["rank"], random_seed=seed)
    shapes = [len(known) for known in sides]
    model.fit(table, ratings, n_iter=settings["n_iter"], group_shapes=shapes)
    return lambda rows: model.predict(encode(rows, sides))
