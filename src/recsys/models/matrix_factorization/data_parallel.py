"""Matrix factorization with whole tables in every process: DistributedDataParallel over dense gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.nn.parallel import DistributedDataParallel

from recsys.data.interactions import Interactions
from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization.batches import PaddedBatch, count_codes
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import ARRAYS, Float32Array, frequency_weights
from recsys.models.matrix_factorization.network import Network, export_array
from recsys.models.matrix_factorization.rating import training_rating
from recsys.models.matrix_factorization.sgd import row_learning_rates


class PenalizedLoss(nn.Module):
    """Half the square errors of a batch plus half its penalties: its gradient is Koren's update (eq. 5)."""

    def __init__(self, network: Network, penalties: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.network, self.penalties = network, penalties

    def forward(self, batch: PaddedBatch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the sum of the square errors alone."""
        p, q, b_u, b_i = self.network.look_up(batch.users, batch.items)
        errors = (training_rating(p * q, self.network.weight, b_u, b_i) - batch.ratings) * batch.mask
        squares = errors.square().sum()
        by_user, by_item = (
            penalty.index_select(0, codes)
            for penalty, codes in zip(self.penalties, (batch.users, batch.items), strict=True)
        )
        penalty = by_user @ (p.square().sum(1) + b_u.square()) + by_item @ (q.square().sum(1) + b_i.square())
        return (squares + penalty) / 2, squares.detach()


class RowwiseSGD(torch.optim.Optimizer):
    """Gradient descent with a learning rate for each row of a table: `rate` of a group is (rows, 1), or ()."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"rate": torch.zeros(())})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every parameter against its gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.addcmul_(parameter.grad, group["rate"], value=-1)


class DataParallelEngine:
    """Whole tables in every process: each computes a gradient from its rows, and all take the same step by the sum.

    Args:
        group: the processes.
        sizes: numbers of users and items.
        config: the settings.
        rows: all rows to train on, the same in every process.
    """

    def __init__(self, group: Group, sizes: tuple[int, int], config: Config, rows: Interactions) -> None:
        self.group, self.sizes, self.batch_size, self.learning_rate = group, sizes, config.batch_size, 0.0
        with torch.no_grad():
            self.network = Network(*sizes, config.embedding_size, group.device)
            share = np.linspace(0, len(rows), group.size + 1, dtype=np.int64)[group.rank : group.rank + 2]
            self.counts_u, self.counts_i = (
                group.sum(count_codes(codes[share[0] : share[1]], 0, n + 1).to(group.device)).float()
                for codes, n in ((rows.users, sizes[0]), (rows.items, sizes[1]))
            )
        penalty_u, penalty_i = (config.regularization * frequency_weights(c) for c in (self.counts_u, self.counts_i))
        loss = PenalizedLoss(self.network, (penalty_u, penalty_i))
        self.loss = DistributedDataParallel(loss, gradient_as_bucket_view=True)
        self.loss.register_comm_hook(group, _sum_gradients)
        net = self.network
        self.optimizer = RowwiseSGD(
            [
                {"params": [net.users.weight, net.user_bias.weight]},
                {"params": [net.items.weight, net.item_bias.weight]},
                {"params": [net.weight]},
            ]
        )

    def initialize(self, seed: int) -> None:
        """Fills the tables with initial values."""
        self.network.initialize(torch.Generator().manual_seed(seed))

    def set_learning_rate(self, learning_rate: float, n_rows: int) -> None:
        """Sets the learning rate of an epoch of so many rows."""
        self.learning_rate = learning_rate
        for group, counts in zip(self.optimizer.param_groups, (self.counts_u, self.counts_i), strict=False):
            group["rate"] = row_learning_rates(learning_rate, counts, self.batch_size, n_rows)[:, None]

    def step(self, batch: PaddedBatch) -> Tensor:
        """Takes one step; returns the sum of square errors of this process's rows, from before it."""
        # The weight belongs to every row alike: its gradient is the batch's mean (see GradientDescent).
        rate = self.learning_rate / batch.n_rows
        self.optimizer.param_groups[2]["rate"] = torch.tensor(rate, device=self.group.device)
        self.optimizer.zero_grad()
        with torch.enable_grad():
            loss, squares = self.loss(batch)
            loss.backward()
        self.optimizer.step()
        return torch.as_tensor(squares)

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of this process's pairs."""
        predicted: Tensor = self.network(users, items)
        return predicted

    def gather_arrays(self, scale: float) -> dict[str, Float32Array]:
        """The arrays of `Factors`, in every process."""
        tables = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        return {name: export_array(name, tables, self, scale)[:-1].cpu().numpy() for name in ARRAYS}


def _sum_gradients(group: Group, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sums where DistributedDataParallel would average, parameter by parameter.

    The order in which a ring sums depends on where in a message a number stands, and DistributedDataParallel sorts its
    messages anew after the first step: a training that goes on from a checkpoint would differ in the last digits.
    """
    for gradient in bucket.gradients():
        group.sum(gradient)
    done: torch.futures.Future[Tensor] = torch.futures.Future(
        devices=[group.device] if group.device.type == "cuda" else None
    )
    done.set_result(bucket.buffer())
    return done
