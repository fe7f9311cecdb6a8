"""Which rows a process trains on, in which batch of which epoch."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from recsys.distributed.process_group import Group


class DistributedBatches:
    """PyTorch's DistributedSampler, cut into batches that are the same sets of rows for every number of processes.

    The order of an epoch is one permutation of all rows, by the seed and the epoch. A batch is a slice of it, and
    process r of s has every s-th row of the permutation from the r-th on: so one process may have one row of a batch
    more than another. The rows that the sampler repeats, to give all processes equally many, are left out.
    """

    def __init__(self, n_rows: int, batch_size: int, group: Group, seed: int) -> None:
        self.n_rows, self.batch_size, self.rank, self.size = n_rows, batch_size, group.rank, group.size
        self.n_batches = -(-n_rows // batch_size)
        self._sampler: DistributedSampler[int] = DistributedSampler(
            cast(Any, range(n_rows)), group.size, group.rank, shuffle=True, seed=seed
        )

    def epoch_rows(self, epoch: int) -> npt.NDArray[np.int64]:
        """Positions of the rows that this process trains on in an epoch, in its order."""
        self._sampler.set_epoch(epoch)
        padded = np.fromiter(self._sampler, np.int64, len(self._sampler))
        return padded[: self._before(self.n_rows)]

    def batch_slice(self, batch: int) -> slice:
        """Where in `epoch_rows` the rows of a batch are, batches counted from 0; may be empty."""
        return slice(
            self._before(batch * self.batch_size), self._before(batch * self.batch_size + self.rows_of_batch(batch))
        )

    def rows_of_batch(self, batch: int) -> int:
        """How many rows a batch has in all processes together."""
        return min(self.batch_size, self.n_rows - batch * self.batch_size)

    def largest_share(self, batch: int) -> int:
        """How many of them the process that has most of them has."""
        return -(-self.rows_of_batch(batch) // self.size)

    def _before(self, position: int) -> int:
        """How many of this process's rows are before a position of the permutation."""
        return max(0, -(-(position - self.rank) // self.size))
