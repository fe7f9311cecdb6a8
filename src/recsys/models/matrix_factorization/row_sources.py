"""Where a training in one process takes its batches from: rows in memory, or rows read from disk."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.data.loader import BlockLoader
from recsys.models.matrix_factorization.network import Rows


class RowSource(Protocol):
    """Rows to train on, in batches."""

    n_rows: int
    counts: tuple[Tensor, Tensor]
    """How often each user, (n_users + 1,), and each item, (n_items + 1,), was rated; the last entries are 0."""

    def batches(self, epoch: int) -> Iterator[Rows]:
        """All rows once, with codes of 64 bits, in the order of an epoch, counted from 1."""


class RowsInMemory:
    """Rows in memory: every epoch has a random order of all rows."""

    def __init__(self, rows: Rows, sizes: tuple[int, int], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed, self.n_rows = rows, batch_size, seed, len(rows.ratings)
        self.counts = (
            torch.bincount(rows.users, minlength=sizes[0] + 1).float(),
            torch.bincount(rows.items, minlength=sizes[1] + 1).float(),
        )

    def batches(self, epoch: int) -> Iterator[Rows]:
        """All rows once."""
        # A generator for each epoch, as in DistributedSampler: several processes see the same batches.
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.n_rows, generator=generator).to(self.rows.ratings.device)
        for start in range(0, self.n_rows, self.batch_size):
            yield self.rows.select(order[start : start + self.batch_size])


class RowsFromDisk:
    """Rows that a loader reads anew in every epoch; its batch size and its seed count."""

    def __init__(self, loader: BlockLoader, device: torch.device) -> None:
        self.loader, self.device, self.n_rows = loader, device, loader.n
        users, items = (torch.from_numpy(np.append(counts, 0)).float().to(device) for counts in loader.counts)
        self.counts = users, items

    def batches(self, epoch: int) -> Iterator[Rows]:
        """All rows once."""
        for users, items, ratings in self.loader.epoch(epoch):
            standardised = ((ratings - self.loader.mean) / self.loader.scale).astype(np.float32)
            yield Rows(
                torch.from_numpy(users.astype(np.int64)).to(self.device),
                torch.from_numpy(items.astype(np.int64)).to(self.device),
                torch.from_numpy(standardised).to(self.device),
            )
