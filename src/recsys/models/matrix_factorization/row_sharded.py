"""Matrix factorization with tables split by rows over the processes: DTensor's row-wise embedding.

Each process holds its rows of the users and of the items, and nothing as long as a table. A batch's rows are looked
up by RowwiseParallel: all processes receive all codes of the batch, each looks up the rows it has, and a
reduce-scatter gives every process the factors of its own pairs. The gradients of those factors go back by an
all-gather, and each process updates the rows it has. RowwiseParallel's own backward pass is not
used: it fills a gradient as large as the whole table in every process.
"""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

from recsys.arrays import Codes
from recsys.data.interactions import Interactions
from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization.batches import PaddedBatch, count_codes
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import ARRAYS, Float32Array, frequency_weights
from recsys.models.matrix_factorization.network import Network, export_array, initialize_factors
from recsys.models.matrix_factorization.rating import predicted_rating, training_rating
from recsys.models.matrix_factorization.sgd import row_learning_rates

TABLES = ("users", "user_bias", "items", "item_bias")


class RowShardedEngine:
    """This process's rows of the tables. Batches have the same length in all processes.

    Args:
        group: the processes.
        sizes: numbers of users and items.
        config: the settings.
        rows: all rows to train on, the same in every process.
    """

    def __init__(self, group: Group, sizes: tuple[int, int], config: Config, rows: Interactions) -> None:
        self.group, self.sizes, self.config, self.n_rows, self.learning_rate = group, sizes, config, len(rows), 0.0
        self.network = Network(*sizes, config.embedding_size, "meta")
        mesh = group.mesh()
        split = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0))
        parallelize_module(self.network, mesh, dict.fromkeys(TABLES, split))
        self.network.to_empty(device=group.device)
        tables = self.tables()
        self.first_u, self.first_i = (self._first(size + 1) for size in sizes)
        self.counts_u = self._counts(rows.users, self.first_u, len(tables["users.weight"]))
        self.counts_i = self._counts(rows.items, self.first_i, len(tables["items.weight"]))
        self.penalty_u, self.penalty_i = (
            config.regularization * self._frequency_weights(counts) for counts in (self.counts_u, self.counts_i)
        )

    def initialize(self, seed: int) -> None:
        """Fills this process's rows with the initial values that one process would give them."""
        tables, generator = self.tables(), torch.Generator().manual_seed(seed)
        initialize_factors(tables["users.weight"], self.first_u, self.sizes[0] + 1, generator)
        initialize_factors(tables["items.weight"], self.first_i, self.sizes[1] + 1, generator)
        tables["user_bias.weight"].zero_()
        tables["item_bias.weight"].zero_()
        tables["weight"].fill_(1)

    def tables(self) -> dict[str, Tensor]:
        """This process's rows of each table, and the weight, by their names in the network."""
        return {
            name: parameter.to_local() if isinstance(parameter, DTensor) else parameter
            for name, parameter in ((n, p.detach()) for n, p in self.network.named_parameters())
        }

    def set_learning_rate(self, learning_rate: float, n_rows: int) -> None:
        """Sets the learning rate of an epoch of so many rows."""
        self.learning_rate = learning_rate
        self.rate_u = row_learning_rates(learning_rate, self.counts_u, self.config.batch_size, n_rows)
        self.rate_i = row_learning_rates(learning_rate, self.counts_i, self.config.batch_size, n_rows)

    def step(self, batch: PaddedBatch) -> Tensor:
        """Takes one step; returns the sum of square errors of this process's rows, from before it."""
        users, items = self._codes_of_all(batch.users, batch.items)
        p, q, b_u, b_i = self._look_up(users, items)
        weight, product = self.network.weight, p * q
        errors = (training_rating(product, weight, b_u, b_i) - batch.ratings) * batch.mask
        # As in GradientDescent, where each rating moves its own rows: errors are the gradients of both biases.
        of_p = torch.cat([errors[:, None] * (q * weight), errors[:, None]], dim=1)
        of_q = torch.cat([errors[:, None] * (p * weight), errors[:, None]], dim=1)
        of_weight = self.group.sum(errors @ product)
        tables = self.tables()
        self._update(
            tables["users.weight"], tables["user_bias.weight"], users - self.first_u, of_p, self.rate_u, self.penalty_u
        )
        self._update(
            tables["items.weight"], tables["item_bias.weight"], items - self.first_i, of_q, self.rate_i, self.penalty_i
        )
        weight.sub_(of_weight, alpha=self.learning_rate / batch.n_rows)
        return errors.square().sum()

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of this process's pairs; equally many in all processes."""
        p, q, b_u, b_i = self._look_up(*self._codes_of_all(users.long(), items.long()))
        return predicted_rating(p * q, self.network.weight, b_u, b_i)

    def gather_arrays(self, scale: float) -> dict[str, Float32Array]:
        """The arrays of `Factors` in rank 0, and arrays without rows elsewhere."""
        tables = self.tables()
        return {name: self.group.collect(export_array(name, tables, self, scale))[:-1] for name in ARRAYS}

    def _first(self, rows: int) -> int:
        """The row of a table that is this process's first."""
        return min(rows, self.group.rank * -(-rows // self.group.size))

    def _counts(self, codes: Codes, first: int, rows: int) -> Tensor:
        """Of this process's rows: every process reads all codes, so that none holds the counts of all."""
        return count_codes(codes, first, rows).to(self.group.device).float()

    def _frequency_weights(self, counts: Tensor) -> Tensor:
        seen = self.group.sum((counts > 0).sum())
        return frequency_weights(counts, self.n_rows / int(seen))

    def _codes_of_all(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of a batch in all processes, by rank."""
        users, items = self.group.gather_even(torch.stack([users, items], dim=1)).unbind(1)
        return users.contiguous(), items.contiguous()

    def _look_up(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Factors and biases of this process's pairs, from the codes of all."""
        found = self.network.look_up(users, items)
        self.group.count_scattered(2 * (self.config.embedding_size + 1) * 4 * len(users))
        return found

    def _update(
        self, factors: Tensor, biases: Tensor, codes: Tensor, gradients: Tensor, rates: Tensor, penalties: Tensor
    ) -> None:
        """Updates this process's rows of a table by all processes' gradients, (batch, k + 1) each, the bias's last."""
        all_gradients = self.group.gather_even(gradients)
        own = ((codes >= 0) & (codes < len(factors))).nonzero()[:, 0]
        rows, moves = codes.index_select(0, own), all_gradients.index_select(0, own)
        rate, penalty = rates.index_select(0, rows)[:, None], penalties.index_select(0, rows)[:, None]
        start = torch.cat([factors.index_select(0, rows), biases.index_select(0, rows)], dim=1)
        moves = moves.addcmul_(start, penalty).mul_(rate).neg_()
        factors.index_add_(0, rows, moves[:, :-1])
        biases.index_add_(0, rows, moves[:, -1:])
