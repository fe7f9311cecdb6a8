"""Which rows a process learns from, in which batch of which epoch."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from recsys.distributed.process_group import Group


class Feed:
    """PyTorch's DistributedSampler, cut into batches that are the same sets of rows for every number of processes.

    The order of an epoch is one permutation of all rows, by the seed and the epoch. A batch is a run of it, and process
    r of s has every s-th row of the permutation from the r-th on: so batches may be shared unevenly, by one row. The
    rows that the sampler repeats, to give all processes equally many, are left out.
    """

    def __init__(self, n_rows: int, batch_size: int, group: Group, seed: int) -> None:
        self.n_rows, self.batch_size, self.rank, self.size = n_rows, batch_size, group.rank, group.size
        self.batches = -(-n_rows // batch_size)
        self._sampler: DistributedSampler[int] = DistributedSampler(
            cast(Any, range(n_rows)), group.size, group.rank, shuffle=True, seed=seed
        )

    def rows(self, epoch: int) -> npt.NDArray[np.int64]:
        """The positions of the rows that this process sees in an epoch, in its order."""
        self._sampler.set_epoch(epoch)
        padded = np.fromiter(self._sampler, np.int64, len(self._sampler))
        return padded[: self._before(self.n_rows)]

    def part(self, batch: int) -> slice:
        """Where the rows of a batch, from 0, stand in `rows`; may be empty."""
        return slice(self._before(batch * self.batch_size), self._before(batch * self.batch_size + self.rows_in(batch)))

    def rows_in(self, batch: int) -> int:
        """How many rows a batch has in all processes together."""
        return min(self.batch_size, self.n_rows - batch * self.batch_size)

    def most(self, batch: int) -> int:
        """How many of them the process with the most has."""
        return -(-self.rows_in(batch) // self.size)

    def _before(self, position: int) -> int:
        """How many of this process's rows stand before a position of the permutation."""
        return max(0, -(-(position - self.rank) // self.size))
