"""What the engines of a distributed training are given: the shape of the model, and batches of rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.models.matrix_factorization.network import Codes, Ratings, Rows

Columns = tuple[Codes, Codes, Ratings]  # users, items, ratings; each (n,), perhaps mapped from a file
COUNT_CHUNK = 1 << 20  # codes counted at a time


@dataclass(frozen=True)
class Shape:
    """The sizes of a training."""

    n_users: int
    n_items: int
    embedding_size: int
    batch_size: int  # rows of all processes together


@dataclass(frozen=True)
class Batch:
    """This process's rows of a batch, equally many in all processes; each (n,).

    Those that fill it up are of the unknown user and item, and `counted` is 0 for them and 1 for the others.
    """

    users: Tensor
    items: Tensor
    ratings: Tensor
    counted: Tensor
    n_together: int  # rows that count, in all processes


def filled(rows: Rows, part: slice, length: int, n_together: int, shape: Shape) -> Batch:
    """A part of the rows, filled up to a length."""
    ratings = rows.ratings[part]
    more = length - len(ratings)
    counted = pad(torch.ones_like(ratings), (0, more))
    users = pad(rows.users[part].long(), (0, more), value=shape.n_users)
    items = pad(rows.items[part].long(), (0, more), value=shape.n_items)
    return Batch(users, items, pad(ratings, (0, more)), counted, n_together)


def count_codes(codes: Codes, first: int, rows: int) -> Tensor:
    """How often each of so many codes from `first` on occurs, as integers; the others are passed over."""
    counts = np.zeros(rows, np.int64)
    for start in range(0, len(codes), COUNT_CHUNK):
        chunk = codes[start : start + COUNT_CHUNK].astype(np.int64) - first
        counts += np.bincount(chunk[(chunk >= 0) & (chunk < rows)], minlength=rows)
    return torch.from_numpy(counts)
