"""Implicit features: a few numbers for each user that say which items the user rated, whatever the rating.

Items get the same kind of features from their users. The matrix of who rated what has a 1 for each rating. Each entry
is divided by a power of its row's and of its column's count, and the strongest singular vectors of the result are
computed by subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4). A user's features are the sum of the
projections of the rated items, divided by the root of their number. SVD++ sums its item vectors in the same way (Koren
2008, eq. 15); here these vectors are limited to the space of the singular vectors.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recsys.models.bayesian_mf.entity import Entity
from recsys.models.bayesian_mf.gram import DeviceChunk
from recsys.runtime.threads import Each

# The more ratings, the finer a difference between who rated what is worth learning.
LEAST_FEATURES, MOST_FEATURES, RATINGS_EACH = 8, 256, 2500
_DAMPING = 0.375  # the power of the counts; SVD++ has 1/2 for rows and 0 for columns
_ITERATIONS = 2
_SPARE = 8  # additional vectors in the iteration, for accuracy


def learn_implicit_features(
    users: Entity, items: Entity, generator: torch.Generator, each: Each
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the users (n_users, r) and of the items (n_items, r), and the items' projection (n_items, r).

    The columns of each table of features are orthogonal. The sum of squares of a row is 1 on average.
    """
    n_users, n_items = len(users.counts), len(items.counts)
    by_user, by_item = (entity.counts.clamp(min=1)[:, None] ** -_DAMPING for entity in (users, items))
    wanted = min(max(round(float(users.counts.sum()) / RATINGS_EACH), LEAST_FEATURES), MOST_FEATURES)
    rank = min(wanted, n_users, n_items)
    width = min(rank + _SPARE, n_items)
    base = torch.randn(n_items, width, generator=generator, device=users.counts.device)
    for _ in range(_ITERATIONS):
        across = by_user * sum_rated(users, by_item * base, each)
        base = torch.linalg.qr(by_item * sum_rated(items, by_user * across, each))[0]
    image = by_user * sum_rated(users, by_item * base, each)  # (n_users, width)
    rotation = torch.linalg.eigh((image.T @ image).double())[1].flip(1)[:, :rank].to(image)
    left, right = image @ rotation, base @ rotation  # left singular vectors times singular values; right ones
    left = left / left.norm(dim=0).clamp(min=1e-6)
    user_features, projection = _features(users, by_item * right, each)
    item_features, _ = _features(items, by_user * left, each)
    return user_features, item_features, projection


def sum_rated(entity: Entity, table: Tensor, each: Each) -> Tensor:
    """For every row of the entity, the sum of those rows of `table` that it has a rating with: (n, r).

    `table`, (n_other, r), belongs to the other entity: for users, it has one row for each item.
    """
    padded = torch.cat((table, table.new_zeros(1, table.shape[1])))
    total = table.new_zeros(len(entity.counts), table.shape[1])

    def add_up(chunk: DeviceChunk) -> None:
        for others in chunk.others:
            total[chunk.rows] += embedding_bag(others, padded, mode="sum")

    each(add_up, entity.chunks)
    return entity.partition.gather_rows(total)


def _features(entity: Entity, projection: Tensor, each: Each) -> tuple[Tensor, Tensor]:
    """Features from projections, rotated so that their columns are orthogonal; and the rotated projections."""
    features = sum_rated(entity, projection, each) / entity.counts.clamp(min=1).sqrt()[:, None]
    rotation = torch.linalg.eigh((features.T @ features).double())[1].to(features)
    size = (features.square().sum() / len(features)).sqrt().clamp(min=1e-6)
    return features @ rotation / size, projection @ rotation / size
