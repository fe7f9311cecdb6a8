"""Ridge regressions, one a user, of the user's ratings on the factors of the rated items. In NumPy."""

import numpy as np

from recsys.arrays import Array, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.padding import make_chunks

_CELLS = 1 << 16  # ratings in one product; limits its memory


def ridge_systems(
    rows: Interactions, n_users: int, table: Array, target: Floats, precision: Array, pull: Array
) -> list[tuple[Array, Array, Array]]:
    """The linear systems whose solutions are the coefficients of the users that have ratings.

    They come in groups of (user codes (u,), posterior precisions (u, d, d), right-hand sides (u, d)).

    Args:
        table: the regressors of each item, shape (n_items, d).
        target: the part of each rating that is to be explained, shape (n,), divided by the noise's standard deviation.
        precision: precision matrix of the prior, shape (d, d).
        pull: that matrix times the mean of each user's prior, shape (n_users, d).
    """
    chunks, _ = make_chunks(rows.users, n_users, cells=_CELLS, waste=_CELLS)
    padded = np.append(table, np.zeros((1, table.shape[1])), axis=0)
    items, rest = np.append(rows.items, len(table)), np.append(target, 0.0)
    groups = []
    for chunk in chunks:
        gram, side = np.array(precision, np.float64)[None], np.asarray(pull[chunk.rows], np.float64)
        for block in chunk.blocks:
            gathered = padded[items[block]]  # (u, length, d)
            gram = gram + gathered.swapaxes(1, 2) @ gathered
            side = side + np.einsum("uld,ul->ud", gathered, rest[block])
        groups.append((chunk.rows, gram, side))
    return groups
