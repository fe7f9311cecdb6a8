"""What a distributed engine takes: padded batches of rows, and how often users and items occur in all rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.arrays import Codes
from recsys.models.matrix_factorization.network import Rows

COUNT_CHUNK = 1 << 20  # codes counted at a time


@dataclass(frozen=True)
class PaddedBatch:
    """This process's rows of a batch, padded to the same length in all processes; each tensor is (n,)."""

    users: Tensor
    items: Tensor
    ratings: Tensor
    mask: Tensor  # 1 for a row, 0 for padding, whose user and item are the unknown ones
    n_rows: int  # of the batch in all processes together, without padding


def pad_batch(rows: Rows, part: slice, length: int, n_rows: int, sizes: tuple[int, int]) -> PaddedBatch:
    """Some of this process's rows, padded to a length.

    Args:
        rows: of this process.
        part: which of them are in the batch; at most `length`.
        length: the same in all processes.
        n_rows: of the batch in all processes together.
        sizes: numbers of users and items: the codes of the unknown user and item.
    """
    ratings = rows.ratings[part]
    padding = 0, length - len(ratings)
    mask = pad(torch.ones_like(ratings), padding)
    users = pad(rows.users[part].long(), padding, value=sizes[0])
    items = pad(rows.items[part].long(), padding, value=sizes[1])
    return PaddedBatch(users, items, pad(ratings, padding), mask, n_rows)


def count_codes(codes: Codes, first: int, n: int) -> Tensor:
    """How often each of the codes first, ..., first + n - 1 occurs, (n,) integers; other codes are ignored."""
    counts = np.zeros(n, np.int64)
    for start in range(0, len(codes), COUNT_CHUNK):
        chunk = codes[start : start + COUNT_CHUNK].astype(np.int64) - first
        counts += np.bincount(chunk[(chunk >= 0) & (chunk < n)], minlength=n)
    return torch.from_numpy(counts)
