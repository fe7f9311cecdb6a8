"""Matrix factorization by stochastic gradient descent: the network, its update and the training loop.

The model and its regularization are those of Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", IEEE Computer 42(8), 2009, equations 4 and 5, with a linear layer over the elementwise
product of the two embeddings in place of their plain inner product.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from recsys.errors import DivergedError
from recsys.metrics import auc_by_ranks

Codes = npt.NDArray[np.integer]  # (n,) positions in the user or the item table
Ratings = npt.NDArray[np.floating]  # (n,)
Vector = npt.NDArray[np.float32]

# Factors start almost at zero, so that only the strongest directions in the ratings grow out of the noise.
# 0.003 instead of 0.01 takes half as many epochs again and 0.002 off the RMSE on MovieLens 1M.
INITIAL_SCALE = 0.003
# The learning rate at epoch t is learning_rate / (1 + DECAY * (t - 1)). It depends on nothing but t, so that
# a refit of N epochs repeats the steps that validation chose.
DECAY = 0.2
# A row seen n times is regularized n * (mean n / n) ** 0.3 times: between a penalty per rating (0, Koren)
# and one per row (1). The exponent is from Rendle et al., "Revisiting the performance of iALS", 2021.
FREQUENCY_EXPONENT = 0.3
PREDICTION_CHUNK = 1 << 13  # rows of a prediction; more leave the cache, which costs a validated epoch 15% of its time


@dataclass(frozen=True)
class Factors:
    """A trained model with the linear layer folded in, in the unit of the ratings.

    A rating is ``mean + user_bias[u] + item_bias[i] + user_factors[u] @ item_factors[i]``. Users and items
    without a training rating have zeros.
    """

    mean: float
    user_bias: Vector  # (n_users,)
    item_bias: Vector  # (n_items,)
    user_factors: Vector  # (n_users, embedding_size)
    item_factors: Vector  # (n_items, embedding_size)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows cost and reached."""

    number: int  # from 1
    seconds: float  # training and validation
    train_rmse: float  # of each row just before the step that used it, in the unit of the ratings
    validation_rmse: float | None
    validation_auc: float | None = None  # of the predicted ratings, ties counting half; NaN for one class


class Network(nn.Module):
    """r̂ = b_u + b_i + Linear(p_u ⊙ q_i), for standardised ratings.

    Each table has one row of zeros more than there are users or items. It stands for every unknown one: its
    bias and its factor term are 0, and no step touches it.
    """

    def __init__(self, n_users: int, n_items: int, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()

        def table(rows: int) -> nn.Parameter:
            start = torch.randn(rows + 1, embedding_size, generator=generator) * INITIAL_SCALE
            start[rows] = 0
            return nn.Parameter(start)

        self.users = table(n_users)  # (n_users + 1, k)
        self.items = table(n_items)  # (n_items + 1, k)
        self.user_bias = nn.Parameter(torch.zeros(n_users + 1))
        self.item_bias = nn.Parameter(torch.zeros(n_items + 1))
        # The linear layer's own bias would repeat the mean. Weights of 1 start at the plain inner product.
        self.weight = nn.Parameter(torch.ones(embedding_size))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Standardised ratings of pairs: two (n,) code tensors in, (n,) out."""
        p, q = self.users.index_select(0, users), self.items.index_select(0, items)  # (n, k)
        biases = self.user_bias.index_select(0, users) + self.item_bias.index_select(0, items)
        return ((p * q) * self.weight).sum(1) + biases


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


class Descent:
    """Koren's update, eq. 5, for a whole batch at once.

    The gradients are written out, since each touches only the rows of the batch: autograd would fill both
    tables with gradients, and Adam would move every row at every step. Each rating moves its own user and
    item by the learning rate, as in the one-row-at-a-time original; Adam moves rare rows as far as frequent
    ones and overfits them (0.009 of RMSE on MovieLens 100K).
    """

    def __init__(self, network: Network, rows: Rows, regularization: float, batch_size: int) -> None:
        self.network, self.rows, self.batch_size = network, rows, batch_size
        self.counts_u = torch.bincount(rows.users, minlength=len(network.users)).float()
        self.counts_i = torch.bincount(rows.items, minlength=len(network.items)).float()
        self.penalty_u = regularization * _rarity(self.counts_u)  # (n_users + 1,), per rating
        self.penalty_i = regularization * _rarity(self.counts_i)

    def epoch(self, learning_rate: float, generator: torch.Generator) -> float:
        """Moves the network along every row once, in random order; returns the mean square error."""
        order = torch.randperm(len(self.rows.ratings), generator=generator).to(self.counts_u.device)
        # A popular item is in a large batch many times. Its moves all start from the same place, so together
        # they must not pass the point that one after the other they would approach.
        crowd = learning_rate * min(1.0, self.batch_size / len(order))
        # Negative, since index_add_ is 5 times slower with an alpha of -1 than without one.
        rate_u = -learning_rate / (1 + crowd * self.counts_u)
        rate_i = -learning_rate / (1 + crowd * self.counts_i)
        shrink_u, shrink_i = rate_u * self.penalty_u, rate_i * self.penalty_i
        total = torch.zeros((), dtype=torch.float64, device=order.device)
        for start in range(0, len(order), self.batch_size):
            batch = self.rows.select(order[start : start + self.batch_size])
            users, items = batch.users, batch.items
            by_user = rate_u.index_select(0, users), shrink_u.index_select(0, users)
            by_item = rate_i.index_select(0, items), shrink_i.index_select(0, items)
            total += self._step(batch, learning_rate, *by_user, *by_item)
        return float(total) / len(order)

    def _step(
        self,
        batch: Rows,
        learning_rate: float,
        rate_u: Tensor,
        shrink_u: Tensor,
        rate_i: Tensor,
        shrink_i: Tensor,
    ) -> Tensor:
        """Moves the network along one batch; returns the sum of its square errors from before the move."""
        net, users, items = self.network, batch.users, batch.items
        p, q = net.users.index_select(0, users), net.items.index_select(0, items)  # (batch, k)
        b_u, b_i = net.user_bias.index_select(0, users), net.item_bias.index_select(0, items)  # (batch,)
        product = p * q
        errors = (product @ net.weight).add_(b_u).add_(b_i).sub_(batch.ratings)
        # The weights belong to every row alike, so their gradient is the batch's mean and they hardly move.
        # Under Adam they outgrow the factors, which so escape their penalty: 0.002 of RMSE on MovieLens 1M.
        weight_gradient = errors @ product / len(errors)
        step_u, step_i = rate_u * errors, rate_i * errors
        move_p = (q * net.weight).mul_(step_u[:, None]).addcmul_(p, shrink_u[:, None])
        move_q = (p * net.weight).mul_(step_i[:, None]).addcmul_(q, shrink_i[:, None])
        net.users.index_add_(0, users, move_p)
        net.items.index_add_(0, items, move_q)
        net.user_bias.index_add_(0, users, step_u.addcmul_(b_u, shrink_u))
        net.item_bias.index_add_(0, items, step_i.addcmul_(b_i, shrink_i))
        net.weight.sub_(weight_gradient, alpha=learning_rate)
        return errors.square().sum()


def has_gpu() -> bool:
    """Whether PyTorch can use a GPU here."""
    return torch.cuda.is_available()


def factorize(
    users: Codes,
    items: Codes,
    ratings: Ratings,
    n_users: int,
    n_items: int,
    *,
    embedding_size: int,
    learning_rate: float,
    regularization: float,
    batch_size: int,
    epochs: int,
    patience: int,
    seed: int,
    device: str = "auto",
    validation: tuple[Codes, Codes, Ratings] | None = None,
    like_threshold: float | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = False,
) -> tuple[Factors, list[Epoch], int]:
    """Trains on ratings and returns the factors, the epochs run and the number of the best one.

    Ratings are standardised inside, so that the settings mean the same on every scale. With validation rows,
    training stops after ``patience`` epochs without a lower RMSE and the best epoch's weights are returned;
    without them it runs all epochs and returns the last.

    Args:
        users: codes from 0 to n_users - 1, (n,).
        items: codes from 0 to n_items - 1, (n,).
        ratings: (n,), of any scale.
        n_users: rows of the user table.
        n_items: rows of the item table.
        embedding_size: factors per user and item.
        learning_rate: step per rating in the first epoch; later epochs take smaller ones.
        regularization: L2 penalty per rating, in units of a standardised rating.
        batch_size: ratings per step.
        epochs: the most passes over the rows.
        patience: epochs without improvement before training stops.
        seed: of the starting factors and of the order of the rows.
        device: a torch device, or "auto" for CUDA where there is one and the CPU elsewhere.
        validation: users, items, ratings; -1 stands for an unknown user or item.
        like_threshold: where given, every epoch is also measured by the AUC of ratings of at least this.
        on_epoch: called after each epoch; what it raises ends the training and passes through.
        progress: shows a bar on a terminal.

    Raises:
        ValueError: there are no ratings to train on or to validate on, or a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    place = torch.device(("cuda" if has_gpu() else "cpu") if device == "auto" else device)
    for purpose, table in (("training", ratings), ("validation", validation and validation[2])):
        if table is not None and len(table) == 0:
            raise ValueError(f"{purpose} needs at least one rating, got 0")
    mean, scale = float(np.mean(ratings, dtype=np.float64)), float(np.std(ratings, dtype=np.float64))
    scale = scale or 1.0  # all ratings alike: nothing to scale, and every prediction is the mean
    sizes = (n_users, n_items)
    rows = _rows((users, items, ratings), mean, scale, sizes, place, unknown=False)
    held_out = validation and _rows(validation, mean, scale, sizes, place, unknown=True)
    liked = None if validation is None or like_threshold is None else validation[2] >= like_threshold

    # On the CPU and of its own: the same numbers on every device, and the caller's generator stays untouched.
    generator = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    best, lowest = 0, math.inf
    hidden = None if progress else True  # None: shown on a terminal only
    with torch.no_grad(), _steady(place), tqdm(total=epochs, disable=hidden) as bar:
        network = Network(n_users, n_items, embedding_size, generator).to(place)
        descent = Descent(network, rows, regularization, batch_size)
        kept = [parameter.clone() for parameter in network.parameters()]
        for number in range(1, epochs + 1):
            started = time.perf_counter()
            train_mse = descent.epoch(learning_rate / (1 + DECAY * (number - 1)), generator)
            predicted = _predictions(network, held_out) if held_out else None
            validation_mse = None if predicted is None or not held_out else _mean_square(predicted, held_out)
            if not math.isfinite(train_mse + (validation_mse or 0.0)):
                raise DivergedError(
                    f"parameter 'learning_rate': a rate that converges is needed; with {learning_rate:g} the loss is "
                    f"not finite in epoch {number}; pass a lower one"
                )
            epoch = Epoch(
                number,
                time.perf_counter() - started,
                scale * math.sqrt(train_mse),
                None if validation_mse is None else scale * math.sqrt(validation_mse),
                None if predicted is None or liked is None else auc_by_ranks(liked, predicted.cpu().numpy()),
            )
            history.append(epoch)
            if epoch.validation_rmse is None or epoch.validation_rmse < lowest:
                best, lowest = number, math.inf if epoch.validation_rmse is None else epoch.validation_rmse
                if held_out:
                    _copy(network.parameters(), kept)
            bar.set_postfix(train=epoch.train_rmse, validation=epoch.validation_rmse)
            bar.update()
            if on_epoch:
                on_epoch(epoch)
            if number - best >= patience:
                break
        if held_out:
            _copy(kept, network.parameters())
        return _folded(network, descent, mean, scale), history, best


def _rows(
    columns: tuple[Codes, Codes, Ratings],
    mean: float,
    scale: float,
    sizes: tuple[int, int],
    device: torch.device,
    *,
    unknown: bool,
) -> Rows:
    """Checks the codes and moves the columns to the device; -1 becomes the table's last row, if allowed."""
    codes = []
    for name, column, size in zip(("users", "items"), columns, sizes, strict=False):
        lowest = -1 if unknown else 0
        if len(column) and not (lowest <= column.min() and column.max() < size):
            raise ValueError(f"{name} must be codes from {lowest} to {size - 1}, got {column.min()} to {column.max()}")
        codes.append(torch.from_numpy(np.where(column < 0, size, column).astype(np.int32)).to(device))
    ratings = torch.from_numpy(((columns[2] - mean) / scale).astype(np.float32)).to(device)
    return Rows(codes[0], codes[1], ratings)


def _rarity(counts: Tensor) -> Tensor:
    """(mean n / n) ** FREQUENCY_EXPONENT for rows seen n times; 1 for a row seen as often as the average."""
    seen = counts.clamp(min=1)
    return (counts[counts > 0].mean() / seen) ** FREQUENCY_EXPONENT


def _predictions(network: Network, rows: Rows) -> Tensor:
    """Standardised ratings of rows: (n,)."""
    parts = range(0, len(rows.ratings), PREDICTION_CHUNK)
    return torch.cat(
        [network(rows.users[s : s + PREDICTION_CHUNK], rows.items[s : s + PREDICTION_CHUNK]) for s in parts]
    )


def _mean_square(predicted: Tensor, rows: Rows) -> float:
    """Mean square error in standardised units."""
    return float((predicted - rows.ratings).square().sum(dtype=torch.float64)) / len(rows.ratings)


def _copy(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    for a, b in zip(source, target, strict=True):
        b.copy_(a)


@contextmanager
def _steady(device: torch.device) -> Iterator[None]:
    """Sets torch up for many small steps that give the same numbers each time, and restores it afterwards.

    One thread on the CPU: on tensors of one batch a second thread gains under a tenth, and where cores are
    shared with other work its waiting costs up to thirty times the step. On CUDA, a row's moves are to be
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


def _folded(network: Network, descent: Descent, mean: float, scale: float) -> Factors:
    """The network in the unit of the ratings, without its rows of zeros."""

    def array(values: Tensor) -> Vector:
        folded: Vector = values[:-1].cpu().numpy()
        return folded

    # An item never rated still holds its starting noise.
    seen_u, seen_i = descent.counts_u > 0, descent.counts_i > 0
    return Factors(
        mean,
        array(network.user_bias * scale),
        array(network.item_bias * scale),
        array(network.users * network.weight * scale * seen_u[:, None]),
        array(network.items * seen_i[:, None]),
    )
