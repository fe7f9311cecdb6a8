"""A chain shared by several processes: which chunks are whose, and how what each computed reaches the others.

After the exchange every process holds the same tables bit for bit, and what follows from whole tables (means,
precisions, the noise) each computes for itself: the chain is the one of a single process, however many share it.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.models.base.padding import Chunk

_ROW_CELLS = 8  # solving for a row costs about as much as adding so many ratings to its Gram matrix


class Exchange(Protocol):
    """What is needed of a group of processes (recsys.distributed.group)."""

    @property
    def rank(self) -> int:
        """From 0."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The (n_r, ...) of every rank, concatenated by rank."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""


class Share:
    """One process's part of the rows of a table."""

    def __init__(self, chunks: Sequence[Chunk], group: Exchange | None, device: torch.device) -> None:
        """Give every process about as much work; all decide alike."""
        self._group = group
        size = group.size if group else 1
        load = [0] * size
        parts: list[list[Chunk]] = [[] for _ in range(size)]
        for chunk in chunks:  # they come with the longest rows first
            lightest = load.index(min(load))
            parts[lightest].append(chunk)
            load[lightest] += sum(block.size for block in chunk.blocks) + _ROW_CELLS * len(chunk.rows)
        self.chunks = parts[group.rank if group else 0]
        rows = [np.concatenate([chunk.rows for chunk in part] or [np.zeros(0, np.int64)]) for part in parts]
        self._rows = torch.from_numpy(np.concatenate(rows)).to(device)
        self._own = torch.from_numpy(rows[group.rank if group else 0]).to(device)

    def complete(self, table: Tensor) -> Tensor:
        """Fill in, in place, the rows (n, r) that the other processes computed."""
        if self._group and self._group.size > 1:
            table[self._rows] = self._group.gather(table[self._own])
        return table

    def total(self, partial: Tensor) -> Tensor:
        """The sum over the processes, each of which has its own rows' part, in place."""
        return self._group.sum(partial) if self._group and self._group.size > 1 else partial
