"""Matrix factorization with tables split by rows over the processes: DTensor's row-wise embedding.

Each process holds its rows of the users and of the items, and nothing as long as a table. A batch's rows are looked
up by RowwiseParallel: all processes hear all codes of the batch, each answers for the rows it has, and a
reduce-scatter hands everyone the factors of its own pairs. The gradients of those factors go back by an all-gather, and
each process moves the rows it has. RowwiseParallel's own backward pass is not used: it fills a gradient as large as
the whole table in every process.
"""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization.batches import Batch, Columns, Shape, count_codes
from recsys.models.matrix_factorization.network import ARRAYS, Network, Vector, fold, start_factors
from recsys.models.matrix_factorization.sgd import damped, rarity

TABLES = ("users", "user_bias", "items", "item_bias")


class Shards:
    """This process's rows of the tables. What is said of a process's batch, its length too, holds for all at once."""

    def __init__(self, group: Group, shape: Shape, rows: Columns, regularization: float) -> None:
        self.group, self.shape, self.n_rows, self.rate = group, shape, len(rows[2]), 0.0
        self.network = Network(shape.n_users, shape.n_items, shape.embedding_size, "meta")
        mesh = group.mesh()
        split = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0))
        parallelize_module(self.network, mesh, dict.fromkeys(TABLES, split))
        self.network.to_empty(device=group.device)
        tables = self.tables()
        self.first_u, self.first_i = self._first(shape.n_users + 1), self._first(shape.n_items + 1)
        self.counts_u = self._counts(rows[0], self.first_u, len(tables["users.weight"]))
        self.counts_i = self._counts(rows[1], self.first_i, len(tables["items.weight"]))
        self.penalty_u, self.penalty_i = (
            regularization * self._rarity(counts) for counts in (self.counts_u, self.counts_i)
        )

    def start(self, seed: int) -> None:
        """Fills this process's rows as the whole tables of one process would be filled."""
        tables, generator = self.tables(), torch.Generator().manual_seed(seed)
        start_factors(tables["users.weight"], self.first_u, self.shape.n_users + 1, generator)
        start_factors(tables["items.weight"], self.first_i, self.shape.n_items + 1, generator)
        tables["user_bias.weight"].zero_()
        tables["item_bias.weight"].zero_()
        tables["weight"].fill_(1)

    def tables(self) -> dict[str, Tensor]:
        """This process's rows of each table, and the weight, by their names in the network."""
        return {
            name: parameter.to_local() if isinstance(parameter, DTensor) else parameter
            for name, parameter in ((n, p.detach()) for n, p in self.network.named_parameters())
        }

    def pace(self, learning_rate: float, n_rows: int) -> None:
        """Sets the rates of an epoch."""
        self.rate = learning_rate
        self.rate_u = damped(learning_rate, self.counts_u, self.shape.batch_size, n_rows)
        self.rate_i = damped(learning_rate, self.counts_i, self.shape.batch_size, n_rows)

    def step(self, batch: Batch) -> Tensor:
        """Moves along a batch; returns this process's sum of square errors, from before the move."""
        users, items = self._codes_of_all(batch.users, batch.items)
        p, q, b_u, b_i = self._look_up(users, items)
        weight, product = self.network.weight, p * q
        errors = (product @ weight + b_u + b_i - batch.ratings) * batch.counted
        # As in Descent, where each rating moves its own rows: errors are the gradients of both biases.
        of_p = torch.cat([errors[:, None] * (q * weight), errors[:, None]], dim=1)
        of_q = torch.cat([errors[:, None] * (p * weight), errors[:, None]], dim=1)
        of_weight = self.group.sum(errors @ product)
        tables = self.tables()
        self._move(
            tables["users.weight"], tables["user_bias.weight"], users - self.first_u, of_p, self.rate_u, self.penalty_u
        )
        self._move(
            tables["items.weight"], tables["item_bias.weight"], items - self.first_i, of_q, self.rate_i, self.penalty_i
        )
        weight.sub_(of_weight, alpha=self.rate / batch.n_together)
        return errors.square().sum()

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of this process's pairs; equally many in all processes."""
        p, q, b_u, b_i = self._look_up(*self._codes_of_all(users.long(), items.long()))
        return ((p * q) * self.network.weight).sum(1) + (b_u + b_i)

    def collect(self, scale: float) -> dict[str, Vector]:
        """The arrays of `Factors` in rank 0, and arrays without rows elsewhere."""
        tables = self.tables()
        return {name: self.group.collect(fold(name, tables, self, scale))[:-1] for name in ARRAYS}

    def _first(self, rows: int) -> int:
        """The row of a table that is this process's first."""
        return min(rows, self.group.rank * -(-rows // self.group.size))

    def _counts(self, codes: object, first: int, rows: int) -> Tensor:
        """Of this process's rows: every process reads all codes, since no one is to hold all counts."""
        return count_codes(codes, first, rows).to(self.group.device).float()  # type: ignore[arg-type]

    def _rarity(self, counts: Tensor) -> Tensor:
        seen = self.group.sum((counts > 0).sum())
        return rarity(counts, self.n_rows / int(seen))

    def _codes_of_all(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of a batch in all processes, by rank."""
        users, items = self.group.gather_even(torch.stack([users, items], dim=1)).unbind(1)
        return users.contiguous(), items.contiguous()

    def _look_up(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Factors and biases of this process's pairs, from the codes of all."""
        found = self.network.look_up(users, items)
        self.group.count_scattered(2 * (self.shape.embedding_size + 1) * 4 * len(users))
        return found

    def _move(
        self, factors: Tensor, biases: Tensor, codes: Tensor, gradients: Tensor, rates: Tensor, penalties: Tensor
    ) -> None:
        """Moves this process's rows of a table by the gradients of all, each (batch, k + 1) with the bias's last."""
        everyones = self.group.gather_even(gradients)
        own = ((codes >= 0) & (codes < len(factors))).nonzero()[:, 0]
        rows, moves = codes.index_select(0, own), everyones.index_select(0, own)
        rate, penalty = rates.index_select(0, rows)[:, None], penalties.index_select(0, rows)[:, None]
        start = torch.cat([factors.index_select(0, rows), biases.index_select(0, rows)], dim=1)
        moves = moves.addcmul_(start, penalty).mul_(rate).neg_()
        factors.index_add_(0, rows, moves[:, :-1])
        biases.index_add_(0, rows, moves[:, -1:])
