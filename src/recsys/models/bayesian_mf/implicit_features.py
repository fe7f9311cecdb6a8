"""Which items a user rated, whatever the rating, in a few numbers a user; and which users an item.

The matrix of who rated what, each entry divided by a power of its row's and its column's count, is cut to its
strongest singular vectors (by subspace iteration: Halko, Martinsson and Tropp 2011, algorithm 4.4). A user's features
are the sum over the items rated of an item's projection, divided by the root of their number, as SVD++ sums its item
vectors (Koren 2008, eq. 15), which this confines to the space of those singular vectors.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recsys.models.bayesian_mf.partition import Share

FEATURES = 64
_DAMPING = 0.375  # the power of the counts; between SVD++'s rows (1/2) and columns (0)
_ITERATIONS = 2
_SPARE = 8  # further vectors that the iteration carries, for accuracy


class Gathering(Protocol):
    """What is needed of a side: (n,) counts, and this process's chunks, each with `rows` and `others`."""

    counts: Tensor
    chunks: list  # type: ignore[type-arg]
    share: Share


def learn_coratings(users: Gathering, items: Gathering, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features of users (n_users, r) and of items (n_items, r), and the items' projection (n_items, r).

    The columns of each table of features are orthogonal, and a row's square sum is 1 on average. A user's features
    are the sum of the projections of the items rated, divided by the root of their number.
    """
    n_users, n_items = len(users.counts), len(items.counts)
    by_user, by_item = (side.counts.clamp(min=1)[:, None] ** -_DAMPING for side in (users, items))
    rank = min(FEATURES, n_users, n_items)
    width = min(rank + _SPARE, n_items)
    base = torch.randn(n_items, width, generator=generator, device=users.counts.device)
    for _ in range(_ITERATIONS):
        across = torch.linalg.qr(by_user * sums(users, by_item * base))[0]
        base = torch.linalg.qr(by_item * sums(items, by_user * across))[0]
    image = by_user * sums(users, by_item * base)  # (n_users, width)
    turn = torch.linalg.eigh((image.T @ image).double())[1].flip(1)[:, :rank].to(image)
    left, right = image @ turn, base @ turn  # left singular vectors times singular values; right ones
    left = left / left.norm(dim=0).clamp(min=1e-6)
    user_features, projection = _features(users, by_item * right)
    item_features, _ = _features(items, by_user * left)
    return user_features, item_features, projection


def sums(side: Gathering, table: Tensor) -> Tensor:
    """For every row of a side, the sum of the other side's rows (n_other, r) that it has a rating with: (n, r)."""
    padded = torch.cat((table, table.new_zeros(1, table.shape[1])))
    total = table.new_zeros(len(side.counts), table.shape[1])
    for chunk in side.chunks:
        for others in chunk.others:
            total[chunk.rows] += embedding_bag(others, padded, mode="sum")
    return side.share.complete(total)


def _features(side: Gathering, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Features by summing projections, turned so that their columns are orthogonal, and the turned projections."""
    features = sums(side, projection) / side.counts.clamp(min=1).sqrt()[:, None]
    turn = torch.linalg.eigh((features.T @ features).double())[1].to(features)
    size = (features.square().sum() / len(features)).sqrt().clamp(min=1e-6)
    return features @ turn / size, projection @ turn / size
