"""Matrix factorization with whole tables in every process: DistributedDataParallel over dense gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.nn.parallel import DistributedDataParallel

from recsys.distributed.process_group import Group
from recsys.models.matrix_factorization.batches import Batch, Columns, Shape, count_codes
from recsys.models.matrix_factorization.network import ARRAYS, Network, Vector, fold
from recsys.models.matrix_factorization.sgd import damped, rarity


class Objective(nn.Module):
    """Half the square errors of a batch and half its penalties, whose gradient is Koren's update (eq. 5)."""

    def __init__(self, network: Network, penalties: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.network, self.penalties = network, penalties

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to descend, and the sum of the square errors alone."""
        p, q, b_u, b_i = self.network.look_up(batch.users, batch.items)
        errors = ((p * q) @ self.network.weight + b_u + b_i - batch.ratings) * batch.counted
        squares = errors.square().sum()
        by_user, by_item = (
            penalty.index_select(0, codes)
            for penalty, codes in zip(self.penalties, (batch.users, batch.items), strict=True)
        )
        penalty = by_user @ (p.square().sum(1) + b_u.square()) + by_item @ (q.square().sum(1) + b_i.square())
        return (squares + penalty) / 2, squares.detach()


class RowRates(torch.optim.Optimizer):
    """Gradient descent with a rate for each row of a table: `rate` of a group is (rows, 1), or a number's tensor."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"rate": torch.zeros(())})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every parameter against its gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.addcmul_(parameter.grad, group["rate"], value=-1)


class Replicas:
    """The tables, the same in all processes: each computes a gradient from its rows, and all move by the sum."""

    def __init__(self, group: Group, shape: Shape, rows: Columns, regularization: float) -> None:
        self.group, self.shape, self.rate = group, shape, 0.0
        with torch.no_grad():
            self.network = Network(shape.n_users, shape.n_items, shape.embedding_size, group.device)
            share = np.linspace(0, len(rows[2]), group.size + 1, dtype=np.int64)[group.rank : group.rank + 2]
            self.counts_u, self.counts_i = (
                group.sum(count_codes(codes[share[0] : share[1]], 0, n + 1).to(group.device)).float()
                for codes, n in ((rows[0], shape.n_users), (rows[1], shape.n_items))
            )
        penalties = regularization * rarity(self.counts_u), regularization * rarity(self.counts_i)
        self.objective = DistributedDataParallel(Objective(self.network, penalties), gradient_as_bucket_view=True)
        self.objective.register_comm_hook(group, _sum_gradients)
        net = self.network
        self.optimizer = RowRates(
            [
                {"params": [net.users.weight, net.user_bias.weight]},
                {"params": [net.items.weight, net.item_bias.weight]},
                {"params": [net.weight]},
            ]
        )

    def start(self, seed: int) -> None:
        """Fills the tables for a training."""
        self.network.start(torch.Generator().manual_seed(seed))

    def pace(self, learning_rate: float, n_rows: int) -> None:
        """Sets the rates of an epoch."""
        self.rate = learning_rate
        for group, counts in zip(self.optimizer.param_groups, (self.counts_u, self.counts_i), strict=False):
            group["rate"] = damped(learning_rate, counts, self.shape.batch_size, n_rows)[:, None]

    def step(self, batch: Batch) -> Tensor:
        """Moves along a batch; returns this process's sum of square errors, from before the move."""
        # The weight belongs to every row alike: its gradient is the batch's mean (see Descent).
        self.optimizer.param_groups[2]["rate"] = torch.tensor(self.rate / batch.n_together, device=self.group.device)
        self.optimizer.zero_grad()
        with torch.enable_grad():
            loss, squares = self.objective(batch)
            loss.backward()
        self.optimizer.step()
        return torch.as_tensor(squares)

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of this process's pairs."""
        predicted: Tensor = self.network(users, items)
        return predicted

    def collect(self, scale: float) -> dict[str, Vector]:
        """The arrays of `Factors`."""
        tables = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        return {name: fold(name, tables, self, scale)[:-1].cpu().numpy() for name in ARRAYS}


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
