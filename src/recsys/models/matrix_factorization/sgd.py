"""Matrix factorization by stochastic gradient descent in PyTorch, a batch at a time: the engine of one GPU.

The model and its regularization are those of Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", IEEE Computer 42(8), 2009, equations 4 and 5, with a linear layer over the elementwise
product of the two embeddings in place of their plain inner product.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from recsys.data.loader import BlockLoader
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.factors import ARRAYS, Factors, Float32Array, frequency_weights
from recsys.models.matrix_factorization.network import Network, Rows, export_array, to_rows
from recsys.models.matrix_factorization.rating import training_rating
from recsys.models.matrix_factorization.row_sources import RowsFromDisk, RowsInMemory, RowSource
from recsys.models.matrix_factorization.schedule import Epoch
from recsys.models.matrix_factorization.training import Problem, run
from recsys.runtime.device import find_device

PREDICTION_CHUNK = 1 << 13  # rows of a prediction; more leave the cache, which costs a validated epoch 15% of its time


class GradientDescent:
    """Koren's update, eq. 5, for a whole batch at once.

    The gradients are written out, since each touches only the rows of the batch: autograd would fill both
    tables with gradients, and Adam would move every row at every step. Each rating moves its own user and
    item by the learning rate, as in the one-row-at-a-time original; Adam moves rare rows as far as frequent
    ones and overfits them (0.009 of RMSE on MovieLens 100K).
    """

    def __init__(self, network: Network, source: RowSource, config: Config) -> None:
        self.network, self.source, self.batch_size = network, source, config.batch_size
        self.tables = network.users.weight, network.items.weight
        self.biases = network.user_bias.weight[:, 0], network.item_bias.weight[:, 0]  # views
        self.counts_u, self.counts_i = source.counts
        self.penalty_u = config.regularization * frequency_weights(self.counts_u)  # (n_users + 1,), per rating
        self.penalty_i = config.regularization * frequency_weights(self.counts_i)

    def run_epoch(self, learning_rate: float, number: int) -> float:
        """Takes one step for every batch of an epoch; returns the mean square error before each step."""
        n_rows = self.source.n_rows
        # Negative, since index_add_ is 5 times slower with an alpha of -1 than without one.
        rate_u = -row_learning_rates(learning_rate, self.counts_u, self.batch_size, n_rows)
        rate_i = -row_learning_rates(learning_rate, self.counts_i, self.batch_size, n_rows)
        shrink_u, shrink_i = rate_u * self.penalty_u, rate_i * self.penalty_i
        total = torch.zeros((), dtype=torch.float64, device=rate_u.device)
        for batch in self.source.batches(number):
            users, items = batch.users, batch.items
            by_user = rate_u.index_select(0, users), shrink_u.index_select(0, users)
            by_item = rate_i.index_select(0, items), shrink_i.index_select(0, items)
            total += self._step(batch, learning_rate, *by_user, *by_item)
        return float(total) / n_rows

    def _step(
        self,
        batch: Rows,
        learning_rate: float,
        rate_u: Tensor,
        shrink_u: Tensor,
        rate_i: Tensor,
        shrink_i: Tensor,
    ) -> Tensor:
        """Takes one step; returns the sum of the batch's square errors from before it."""
        net, users, items = self.network, batch.users, batch.items
        p, q = self.tables[0].index_select(0, users), self.tables[1].index_select(0, items)  # (batch, k)
        b_u, b_i = self.biases[0].index_select(0, users), self.biases[1].index_select(0, items)  # (batch,)
        product = p * q
        errors = training_rating(product, net.weight, b_u, b_i).sub_(batch.ratings)
        # The weights belong to every row alike, so their gradient is the batch's mean and they hardly move.
        # Under Adam they outgrow the factors, which so escape their penalty: 0.002 of RMSE on MovieLens 1M.
        weight_gradient = errors @ product / len(errors)
        step_u, step_i = rate_u * errors, rate_i * errors
        move_p = (q * net.weight).mul_(step_u[:, None]).addcmul_(p, shrink_u[:, None])
        move_q = (p * net.weight).mul_(step_i[:, None]).addcmul_(q, shrink_i[:, None])
        self.tables[0].index_add_(0, users, move_p)
        self.tables[1].index_add_(0, items, move_q)
        self.biases[0].index_add_(0, users, step_u.addcmul_(b_u, shrink_u))
        self.biases[1].index_add_(0, items, step_i.addcmul_(b_i, shrink_i))
        net.weight.sub_(weight_gradient, alpha=learning_rate)
        return errors.square().sum()


def row_learning_rates(learning_rate: float, counts: Tensor, batch_size: int, n_rows: int) -> Tensor:
    """The learning rate of each user or item, from how often it was rated; shape as `counts`.

    A popular item is in a large batch many times. All its gradients are of the same starting point, so their sum must
    not go beyond the point that single steps, one after the other, would approach.
    """
    return learning_rate / (1 + learning_rate * min(1.0, batch_size / n_rows) * counts)


class BatchEngine:
    """Whole tables on one device, and batches of rows in memory or on disk."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        (mean, scale), sizes, config = problem.unit, problem.sizes, problem.config
        self.scale = scale
        source: RowSource
        if isinstance(problem.rows, BlockLoader):
            source = RowsFromDisk(problem.rows, device)
        else:
            rows = to_rows(problem.rows, mean, scale, sizes, device, unknown=False)
            source = RowsInMemory(rows, sizes, config.batch_size, problem.seed)
        generator = torch.Generator().manual_seed(problem.seed)
        self.network = Network(*sizes, config.embedding_size, device).initialize(generator)
        self.descent = GradientDescent(self.network, source, config)
        self.run_epoch = self.descent.run_epoch
        self.kept = [parameter.clone() for parameter in self.network.parameters()]
        if problem.validation is not None:
            self.held_out = to_rows(problem.validation, mean, scale, sizes, device, unknown=True)

    def predict(self) -> Float32Array:
        """Standardised ratings of the validation rows, (n,)."""
        users, items = self.held_out.users, self.held_out.items
        parts = (slice(start, start + PREDICTION_CHUNK) for start in range(0, len(users), PREDICTION_CHUNK))
        predicted: Float32Array = torch.cat([self.network(users[part], items[part]) for part in parts]).cpu().numpy()
        return predicted

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""
        copy_tensors(self.network.parameters(), self.kept)

    def restore(self) -> None:
        """Goes back to the tables that were kept."""
        copy_tensors(self.kept, self.network.parameters())

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors`, in the unit of the ratings."""
        tables = dict(self.network.named_parameters())
        return {name: export_array(name, tables, self.descent, self.scale)[:-1].cpu().numpy() for name in ARRAYS}


def fit_factors(problem: Problem, on_epoch: Callable[[Epoch], None] | None = None) -> tuple[Factors, list[Epoch], int]:
    """Trains on the device of the configuration, as `training.run` describes.

    Raises:
        ValueError: a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    device = torch.device(find_device(problem.config.device))
    with torch.no_grad(), reproducible_torch(device):
        return run(problem, BatchEngine(problem, device), on_epoch)


def copy_tensors(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    """Writes tensors into others of the same shapes."""
    for a, b in zip(source, target, strict=True):
        b.copy_(a)


@contextmanager
def reproducible_torch(device: torch.device) -> Iterator[None]:
    """Sets PyTorch up for many small steps that give the same numbers each time, and restores it afterwards.

    One thread on the CPU: on tensors of one batch a second thread gains under a tenth, and where cores are
    shared with other work its waiting costs up to thirty times the step. On CUDA, a row's gradients have to be
    summed in the same order each time; one thread of a CPU does so anyway.
    """
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if device.type != "cpu":  # the call imports PyTorch's compiler, which takes most of a second
            torch.use_deterministic_algorithms(exact, warn_only=warns)
