"""Implicit features: a few numbers for each user that say which items the user rated, whatever the rating.

Items get the same kind of features from their users. The matrix of who rated what has a 1 for each rating. Each entry
is divided by a power of its row's and of its column's count, and the strongest singular vectors of the result are
computed by subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4). A user's features are the sum of the
projections of the rated items, divided by the root of their number. SVD++ sums its item vectors in the same way (Koren
2008, eq. 15); here these vectors are limited to the space of the singular vectors.
"""

import numpy as np

from recsys.models.bayesian_mf.backend import Table
from recsys.models.bayesian_mf.conditional import DeviceChunk
from recsys.models.bayesian_mf.entity import Entity
from recsys.runtime.threads import Each

# The more ratings, the finer a difference between who rated what is worth learning.
LEAST_FEATURES, MOST_FEATURES, RATINGS_EACH = 8, 256, 2500
_DAMPING = 0.375  # the power of the counts; SVD++ has 1/2 for rows and 0 for columns
_ITERATIONS = 2
_SPARE = 8  # additional vectors in the iteration, for accuracy
_LEAST_SIZE = 1e-6  # of a column that is divided by its size


def learn_implicit_features(users: Entity, items: Entity, base: Table, rank: int, each: Each) -> tuple[Table, ...]:
    """Features of the users (n_users, r) and of the items (n_items, r), and the items' projection (n_items, r).

    The columns of each table of features are orthogonal. The sum of squares of a row is 1 on average.

    Args:
        users: the users of the chain.
        items: its items.
        base: standard normal numbers from which the iteration starts, (n_items, `count_features` and some to spare).
        rank: r.
        each: applies a function to all chunks.
    """
    qr = users.backend.xp.linalg.qr
    by_user, by_item = (entity.counts.clip(min=1)[:, None] ** -_DAMPING for entity in (users, items))
    for _ in range(_ITERATIONS):
        across = by_user * sum_rated(users, by_item * base, each)
        base = qr(by_item * sum_rated(items, by_user * across, each))[0]
    image = by_user * sum_rated(users, by_item * base, each)  # (n_users, width)
    rotation = users.to_device(_axes(users, image)[:, ::-1][:, :rank])
    left, right = image @ rotation, base @ rotation  # left singular vectors times singular values; right ones
    left = left / ((left * left).sum(0) ** 0.5).clip(min=_LEAST_SIZE)
    user_features, projection = _features(users, by_item * right, each)
    item_features, _ = _features(items, by_user * left, each)
    return user_features, item_features, projection


def count_features(n_ratings: int, n_users: int, n_items: int) -> tuple[int, int]:
    """The number of features, and that of the vectors they are found among."""
    rank = min(max(round(n_ratings / RATINGS_EACH), LEAST_FEATURES), MOST_FEATURES, n_users, n_items)
    return rank, min(rank + _SPARE, n_items)


def sum_rated(entity: Entity, table: Table, each: Each) -> Table:
    """For every row of the entity, the sum of those rows of `table` that it has a rating with: (n, r).

    `table`, (n_other, r), belongs to the other entity: for users, it has one row for each item.
    """
    total, table = entity.backend.zeros(len(entity.counts), table.shape[1]), entity.backend.contiguous(table)

    def add_up(chunk: DeviceChunk) -> None:
        entity.backend.add_lines(total, chunk, table)

    each(add_up, entity.chunks)
    return entity.partition.gather_rows(total)


def _features(entity: Entity, projection: Table, each: Each) -> tuple[Table, Table]:
    """Features from projections, rotated so that their columns are orthogonal; and the rotated projections."""
    features = sum_rated(entity, projection, each) / entity.counts.clip(min=1)[:, None] ** 0.5
    size = max((float((features * features).sum()) / len(features)) ** 0.5, _LEAST_SIZE)
    rotation = entity.to_device(_axes(entity, features))
    return features @ rotation / size, projection @ rotation / size


def _axes(entity: Entity, table: Table) -> np.ndarray:
    """Eigenvectors of table'table, (r, r), in columns, the weakest first."""
    return np.linalg.eigh(entity.backend.array(table.T @ table).astype(np.float64))[1]
