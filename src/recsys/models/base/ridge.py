"""Ridge regressions of many users' ratings on the factors of what they rated, in NumPy."""

import numpy as np

from recsys.arrays import Array, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.padding import cut

_CELLS = 1 << 16  # ratings in a product, which bounds its memory


def ridge_systems(
    rows: Interactions, n_users: int, table: Array, target: Floats, precision: Array, pull: Array
) -> list[tuple[Array, Array, Array]]:
    """What the users' coefficients solve: groups of (users (u,), precisions (u, d, d), right-hand sides (u, d)).

    Args:
        table: what each item's rating is regressed on, (n_items, d).
        target: what is left to explain of each rating, (n,), in units of its noise.
        precision: of the prior: (d, d).
        pull: precision times mean of the prior, (n_users, d).
    """
    chunks, _ = cut(rows.users, n_users, cells=_CELLS, waste=_CELLS)
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
