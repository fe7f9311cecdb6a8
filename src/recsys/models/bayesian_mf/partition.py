"""A chain that several processes compute together: which process solves which rows, and how it sends the results.

After each exchange all processes hold the same tables, equal bit for bit. What depends on whole tables (means,
precisions, the noise) is then computed by every process for itself. The draws are the same for any number of processes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from recsys.models.base.padding import Chunk
from recsys.models.bayesian_mf.backend import Backend, Table

_ROW_CELLS = 8  # to solve for a row costs about as much as to add this many ratings to its Gram matrix


class Collective(Protocol):
    """The collective operations of a group of processes (bayesian_mf.distributed); all processes must call each."""

    @property
    def rank(self) -> int:
        """From 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def device(self) -> str:
        """Where this process computes."""

    def gather(self, table: Table) -> Table:
        """The tables (n_r, ...) of all ranks, concatenated in order of rank."""

    def sum(self, table: Table) -> Table:
        """The sum over all ranks, in place."""


class Partition:
    """The chunks of a table that belong to one process."""

    def __init__(self, chunks: Sequence[Chunk], collective: Collective | None, backend: Backend) -> None:
        """Assign all chunks so that the processes have about equal work; every process finds the same assignment."""
        self._collective = collective
        size = collective.size if collective else 1
        load = [0] * size
        parts: list[list[Chunk]] = [[] for _ in range(size)]
        for chunk in chunks:  # the longest rows come first
            lightest = load.index(min(load))
            parts[lightest].append(chunk)
            load[lightest] += sum(block.size for block in chunk.blocks) + _ROW_CELLS * len(chunk.rows)
        self.chunks = parts[collective.rank if collective else 0]
        rows = [np.concatenate([chunk.rows for chunk in part] or [np.zeros(0, np.int64)]) for part in parts]
        self._rows = backend.table(np.concatenate(rows))
        self._own = backend.table(rows[collective.rank if collective else 0])

    def gather_rows(self, table: Table) -> Table:
        """Fill in, in place, the rows of a table (n, r) that the other processes computed."""
        if self._collective and self._collective.size > 1:
            table[self._rows] = self._collective.gather(table[self._own])
        return table

    def sum(self, partial: Table) -> Table:
        """The sum over the processes, in place; each process has the part that its own rows contribute."""
        return self._collective.sum(partial) if self._collective and self._collective.size > 1 else partial
