"""The Gram matrices of a chunk's rows: what each row's ratings say of its factors, in one batched product."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gathered:
    """A ragged.Chunk on the device; `others` are the table rows gathered, (rows, length), the last one for padding."""

    rows: Tensor
    places: tuple[Tensor, ...]
    others: tuple[Tensor, ...]


def make_table(factors: Tensor, precision: Tensor) -> Tensor:
    """What the other side gathers: (n + 1, d + 1) of [factors, 1, -bias], each row times the root of its precision.

    The last row is zero, for padding.
    """
    n, d = factors.shape
    table = factors.new_zeros(n + 1, d + 1)
    table[:n, : d - 1] = factors[:, : d - 1]
    table[:n, d - 1] = 1
    table[:n, d] = -factors[:, d - 1]
    table[:n] *= precision.sqrt()[:, None]
    return table


def gather(table: Tensor, target: Tensor, chunk: Gathered, position: int) -> Tensor:
    """G of every row of one of the chunk's blocks, (rows, length, d + 1)."""
    places, others = chunk.places[position], chunk.others[position]
    gathered = table.index_select(0, others.flatten()).view(*others.shape, -1)
    ratings = target.index_select(0, places.flatten()).view_as(places)
    gathered[..., -1].addcmul_(ratings, gathered[..., -2])  # the column of ones carries the root of the precision
    return gathered


def make_grams(table: Tensor, target: Tensor, chunk: Gathered) -> tuple[Tensor, Tensor | None]:
    """G'G of every row, (rows, d + 1, d + 1); G too, where it is in one block."""
    gathered = gather(table, target, chunk, 0)
    gram = torch.bmm(gathered.mT, gathered)
    if len(chunk.places) == 1:
        return gram, gathered
    for position in range(1, len(chunk.places)):
        gathered = gather(table, target, chunk, position)
        gram += torch.bmm(gathered.mT, gathered)
    return gram, None
