"""Matrix factorization by stochastic gradient descent: the update and the training loop.

The model and its regularization are those of Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", IEEE Computer 42(8), 2009, equations 4 and 5, with a linear layer over the elementwise
product of the two embeddings in place of their plain inner product.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.data.loader import BlockLoader
from recsys.metrics import auc_by_ranks
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.network import (
    ARRAYS,
    Factors,
    Network,
    Rows,
    export_array,
    to_rows,
)
from recsys.models.matrix_factorization.rating import training_rating
from recsys.models.matrix_factorization.row_sources import RowsFromDisk, RowsInMemory, RowSource
from recsys.models.matrix_factorization.schedule import Epoch, TrainingSchedule
from recsys.runtime.device import find_device

# A row seen n times is regularized n * (mean n / n) ** 0.3 times: between a penalty per rating (0, Koren)
# and one per row (1). The exponent is from Rendle et al., "Revisiting the performance of iALS", 2021.
FREQUENCY_EXPONENT = 0.3
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


def fit_factors(
    rows: Interactions | BlockLoader,
    sizes: tuple[int, int],
    config: Config,
    *,
    seed: int,
    validation: Interactions | None = None,
    like_threshold: float | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Factors, list[Epoch], int]:
    """Trains in this process; returns the factors, the epochs run and the number of the best one.

    Ratings are standardised inside, so that the settings mean the same on every scale. With validation rows,
    training stops after ``patience`` epochs without a lower RMSE and the best epoch's weights are returned;
    without them it runs all epochs and returns the last.

    Args:
        rows: ratings of any scale; or a loader that reads them from disk, in batches of its own.
        sizes: how many users and items there are; all codes are below.
        config: the settings.
        seed: of the starting factors and of the order of the rows.
        validation: rows to choose the epoch by; -1 stands for an unknown user or item.
        like_threshold: if given, every epoch is also measured by the AUC of ratings of at least this.
        on_epoch: called after each epoch; what it raises ends the training and passes through.

    Raises:
        ValueError: there are no ratings to train on or to validate on, or a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    device = torch.device(find_device(config.device))
    source: RowSource
    if isinstance(rows, BlockLoader):
        mean, scale, source = rows.mean, rows.scale, RowsFromDisk(rows, device)
    else:
        check_not_empty(rows, validation)
        mean, scale = _mean_and_deviation(rows.ratings)
        source = RowsInMemory(to_rows(rows, mean, scale, sizes, device, unknown=False), sizes, config.batch_size, seed)
    held_out = None if validation is None else to_rows(validation, mean, scale, sizes, device, unknown=True)
    liked = None if validation is None or like_threshold is None else validation.ratings >= like_threshold

    schedule = TrainingSchedule(config, scale)
    with torch.no_grad(), reproducible_torch(device):
        network = Network(*sizes, config.embedding_size, device).initialize(torch.Generator().manual_seed(seed))
        descent = GradientDescent(network, source, config)
        best_weights = [parameter.clone() for parameter in network.parameters()]
        while not schedule.is_finished:
            started = time.perf_counter()
            train_mse = descent.run_epoch(schedule.learning_rate, schedule.next_epoch)
            predicted = _predictions(network, held_out) if held_out else None
            epoch = Epoch(
                schedule.next_epoch,
                time.perf_counter() - started,
                schedule.rmse(train_mse),
                schedule.rmse(mean_square_error(predicted, held_out.ratings))
                if predicted is not None and held_out
                else None,
                None if predicted is None or liked is None else auc_by_ranks(liked, predicted.cpu().numpy()),
            )
            if schedule.add(epoch) and held_out:
                copy_tensors(network.parameters(), best_weights)
            if on_epoch:
                on_epoch(epoch)
        if held_out:
            copy_tensors(best_weights, network.parameters())
        tables = dict(network.named_parameters())
        arrays = {name: export_array(name, tables, descent, scale)[:-1].cpu().numpy() for name in ARRAYS}
        return Factors(mean, **arrays), schedule.history, schedule.best_epoch


def check_not_empty(rows: Interactions, validation: Interactions | None) -> None:
    """Raises ValueError where there is nothing to train on, or to validate on."""
    for purpose, table in (("training", rows), ("validation", validation)):
        if table is not None and len(table) == 0:
            raise ValueError(f"{purpose} needs at least one rating, got 0")


def _mean_and_deviation(ratings: Floats) -> tuple[float, float]:
    mean, deviation = float(np.mean(ratings, dtype=np.float64)), float(np.std(ratings, dtype=np.float64))
    return mean, deviation or 1.0  # all ratings alike: nothing to scale, and every prediction is the mean


def frequency_weights(counts: Tensor, mean: float | None = None) -> Tensor:
    """(mean n / n) ** FREQUENCY_EXPONENT for rows seen n times; 1 for a row seen as often as the average."""
    average = counts[counts > 0].mean() if mean is None else mean
    return (average / counts.clamp(min=1)) ** FREQUENCY_EXPONENT


def _predictions(network: Network, rows: Rows) -> Tensor:
    """Standardised ratings of rows: (n,)."""
    parts = range(0, len(rows.ratings), PREDICTION_CHUNK)
    return torch.cat(
        [network(rows.users[s : s + PREDICTION_CHUNK], rows.items[s : s + PREDICTION_CHUNK]) for s in parts]
    )


def mean_square_error(predicted: Tensor, ratings: Tensor) -> float:
    """Mean square error in standardised units."""
    return float((predicted - ratings).square().sum(dtype=torch.float64)) / len(ratings)


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
        torch.use_deterministic_algorithms(exact, warn_only=warns)
