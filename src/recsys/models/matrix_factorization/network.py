"""The network of matrix factorization in PyTorch: its tables, their initial values, its input rows and its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.data.interactions import Interactions
from recsys.models.matrix_factorization.factors import INITIAL_SCALE, standardise
from recsys.models.matrix_factorization.rating import predicted_rating

START_CHUNK = 1 << 13  # rows of a table whose starting factors are drawn at a time; it decides the numbers


class Network(nn.Module):
    """Predicts standardised ratings by `rating.predicted_rating`.

    Each table has one row of zeros more than there are users or items. It stands for every unknown one: its
    bias and its factor term are 0, and no step touches it.
    """

    def __init__(self, n_users: int, n_items: int, embedding_size: int, device: torch.device | str) -> None:
        super().__init__()

        def table(rows: int, columns: int) -> nn.Embedding:
            return nn.Embedding(rows + 1, columns, _weight=torch.empty(rows + 1, columns, device=device))

        self.users = table(n_users, embedding_size)  # (n_users + 1, k)
        self.items = table(n_items, embedding_size)  # (n_items + 1, k)
        self.user_bias = table(n_users, 1)
        self.item_bias = table(n_items, 1)
        self.weight = nn.Parameter(torch.empty(embedding_size, device=device))

    def initialize(self, generator: torch.Generator) -> "Network":
        """Fills the tables with initial values; the generator is one of the CPU, for equal numbers on every device."""
        for table in (self.users, self.items):
            initialize_factors(table.weight, 0, table.num_embeddings, generator)
        for bias in (self.user_bias, self.item_bias):
            bias.weight.zero_()
        # The linear layer's own bias would repeat the mean. Weights of 1 start at the plain inner product.
        self.weight.fill_(1)
        return self

    def look_up(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Factors and biases of pairs: two (n,) code tensors in; (n, k), (n, k), (n,), (n,) out."""
        biases = self.user_bias(users)[:, 0], self.item_bias(items)[:, 0]
        return self.users(users), self.items(items), *biases

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of pairs: two (n,) code tensors in, (n,) out."""
        p, q, b_u, b_i = self.look_up(users, items)
        return predicted_rating(p * q, self.weight, b_u, b_i)


def initialize_factors(table: Tensor, first: int, rows: int, generator: torch.Generator) -> None:
    """Fills a table, or its part from row `first` on, with the initial factors of a table of `rows` rows.

    The numbers of the whole table are drawn, a chunk at a time, whatever the part: so the parts agree with the whole
    table, which is never in memory.
    """
    for begin in range(0, rows, START_CHUNK):
        chunk = torch.randn(min(START_CHUNK, rows - begin), table.shape[1], generator=generator).mul_(INITIAL_SCALE)
        low, high = max(begin, first), min(begin + len(chunk), first + len(table))
        if low < high:
            table[low - first : high - first] = chunk[low - begin : high - begin]
    if first < rows <= first + len(table):
        table[rows - 1 - first] = 0


@dataclass(frozen=True)
class Rows:
    """Ratings as tensors on one device: codes of 32 bits, standardised ratings; each (n,)."""

    users: Tensor
    items: Tensor
    ratings: Tensor

    def select(self, rows: Tensor) -> "Rows":
        """The rows at these positions, with codes of 64 bits, on which index_add_ is 5 times faster."""
        return Rows(
            self.users.index_select(0, rows).long(),
            self.items.index_select(0, rows).long(),
            self.ratings.index_select(0, rows),
        )


def to_rows(
    interactions: Interactions,
    mean: float,
    scale: float,
    sizes: tuple[int, int],
    device: torch.device,
    *,
    unknown: bool,
) -> Rows:
    """The rows of `factors.standardise`, moved to the device."""
    columns = standardise(interactions, mean, scale, sizes, unknown=unknown)
    return Rows(*(torch.from_numpy(column).to(device) for column in columns))


class RatingCounts(Protocol):
    """How often each row of the tables, or of a part of them, was rated."""

    counts_u: Tensor
    counts_i: Tensor


def export_array(name: str, tables: Mapping[str, Tensor], counts: RatingCounts, scale: float) -> Tensor:
    """An array of `Factors` from a network's parameters by name, or from the same part of each of its tables."""
    # A user or an item never rated still holds its starting noise.
    if name == "user_factors":
        return tables["users.weight"] * (tables["weight"] * scale) * (counts.counts_u > 0)[:, None]
    if name == "item_factors":
        return tables["items.weight"] * (counts.counts_i > 0)[:, None]
    return tables[f"{name}.weight"][:, 0] * scale
