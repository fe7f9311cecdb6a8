"""Matrix factorization by stochastic gradient descent: the update and the training loop.

The model and its regularization are those of Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", IEEE Computer 42(8), 2009, equations 4 and 5, with a linear layer over the elementwise
product of the two embeddings in place of their plain inner product.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recsys.data.loader import BlockLoader
from recsys.errors import DivergedError
from recsys.metrics import auc_by_ranks
from recsys.models.matrix_factorization.network import ARRAYS, Codes, Factors, Network, Ratings, Rows, as_rows, fold
from recsys.runtime.device import find_device

# The learning rate at epoch t is learning_rate / (1 + DECAY * (t - 1)). It depends on nothing but t, so that
# a refit of N epochs repeats the steps that validation chose.
DECAY = 0.2
# A row seen n times is regularized n * (mean n / n) ** 0.3 times: between a penalty per rating (0, Koren)
# and one per row (1). The exponent is from Rendle et al., "Revisiting the performance of iALS", 2021.
FREQUENCY_EXPONENT = 0.3
PREDICTION_CHUNK = 1 << 13  # rows of a prediction; more leave the cache, which costs a validated epoch 15% of its time


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows cost and reached."""

    number: int  # from 1
    seconds: float  # training and validation
    train_rmse: float  # of each row just before the step that used it, in the unit of the ratings
    validation_rmse: float | None
    validation_auc: float | None = None  # of the predicted ratings, ties counting half; NaN for one class


class Descent:
    """Koren's update, eq. 5, for a whole batch at once.

    The gradients are written out, since each touches only the rows of the batch: autograd would fill both
    tables with gradients, and Adam would move every row at every step. Each rating moves its own user and
    item by the learning rate, as in the one-row-at-a-time original; Adam moves rare rows as far as frequent
    ones and overfits them (0.009 of RMSE on MovieLens 100K).
    """

    def __init__(self, network: Network, supply: "Supply", regularization: float, batch_size: int) -> None:
        self.network, self.supply, self.batch_size = network, supply, batch_size
        self.tables = network.users.weight, network.items.weight
        self.biases = network.user_bias.weight[:, 0], network.item_bias.weight[:, 0]  # views
        self.counts_u, self.counts_i = supply.counts
        self.penalty_u = regularization * rarity(self.counts_u)  # (n_users + 1,), per rating
        self.penalty_i = regularization * rarity(self.counts_i)

    def epoch(self, learning_rate: float, number: int) -> float:
        """Moves the network along every row once, in the order of this epoch; returns the mean square error."""
        n_rows = self.supply.n
        # Negative, since index_add_ is 5 times slower with an alpha of -1 than without one.
        rate_u = -damped(learning_rate, self.counts_u, self.batch_size, n_rows)
        rate_i = -damped(learning_rate, self.counts_i, self.batch_size, n_rows)
        shrink_u, shrink_i = rate_u * self.penalty_u, rate_i * self.penalty_i
        total = torch.zeros((), dtype=torch.float64, device=rate_u.device)
        for batch in self.supply.epoch(number):
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
        """Moves the network along one batch; returns the sum of its square errors from before the move."""
        net, users, items = self.network, batch.users, batch.items
        p, q = self.tables[0].index_select(0, users), self.tables[1].index_select(0, items)  # (batch, k)
        b_u, b_i = self.biases[0].index_select(0, users), self.biases[1].index_select(0, items)  # (batch,)
        product = p * q
        errors = (product @ net.weight).add_(b_u).add_(b_i).sub_(batch.ratings)
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


class Supply(Protocol):
    """Where batches come from."""

    n: int  # rows
    counts: tuple[Tensor, Tensor]  # of every row of the two tables

    def epoch(self, number: int) -> Iterator[Rows]:
        """All rows once, with codes of 64 bits."""


class _Held:
    """Rows in memory, fully shuffled."""

    def __init__(self, rows: Rows, sizes: tuple[int, int], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed, self.n = rows, batch_size, seed, len(rows.ratings)
        self.counts = (
            torch.bincount(rows.users, minlength=sizes[0] + 1).float(),
            torch.bincount(rows.items, minlength=sizes[1] + 1).float(),
        )

    def epoch(self, number: int) -> Iterator[Rows]:
        # Of its own for each epoch, as DistributedSampler has it: several processes see the same batches.
        generator = torch.Generator().manual_seed(self.seed + number)
        order = torch.randperm(self.n, generator=generator).to(self.rows.ratings.device)
        for start in range(0, self.n, self.batch_size):
            yield self.rows.select(order[start : start + self.batch_size])


class _Streamed:
    """Rows that a feed reads."""

    def __init__(self, feed: BlockLoader, device: torch.device) -> None:
        self.feed, self.device, self.n = feed, device, feed.n
        users, items = (torch.from_numpy(np.append(counts, 0)).float().to(device) for counts in feed.counts)
        self.counts = users, items

    def epoch(self, number: int) -> Iterator[Rows]:
        for users, items, ratings in self.feed.epoch(number):
            standardised = ((ratings - self.feed.mean) / self.feed.scale).astype(np.float32)
            yield Rows(
                torch.from_numpy(users.astype(np.int64)).to(self.device),
                torch.from_numpy(items.astype(np.int64)).to(self.device),
                torch.from_numpy(standardised).to(self.device),
            )


def damped(learning_rate: float, counts: Tensor, batch_size: int, n_rows: int) -> Tensor:
    """The step of a user or item that was counted so often, per rating.

    A popular item is in a large batch many times. Its moves all start from the same place, so together they must not
    pass the point that one after the other they would approach.
    """
    return learning_rate / (1 + learning_rate * min(1.0, batch_size / n_rows) * counts)


class Course:
    """The epochs of a training so far, which of them was the best, and whether another is to follow."""

    def __init__(self, epochs: int, patience: int, learning_rate: float, scale: float) -> None:
        self.epochs, self.patience, self.learning_rate, self.scale = epochs, patience, learning_rate, scale
        self.history: list[Epoch] = []
        self.best, self.lowest = 0, math.inf

    @property
    def number(self) -> int:
        """Of the epoch that is next, from 1."""
        return len(self.history) + 1

    @property
    def rate(self) -> float:
        """The learning rate of the epoch that is next."""
        return self.learning_rate / (1 + DECAY * len(self.history))

    @property
    def ended(self) -> bool:
        """Whether no epoch is left, or there was no better one for too long."""
        return len(self.history) >= self.epochs or len(self.history) - self.best >= self.patience

    def add(self, epoch: Epoch) -> bool:
        """Takes in the epoch that was next; returns whether it is the best so far."""
        if not math.isfinite(epoch.train_rmse + (epoch.validation_rmse or 0.0)):
            raise DivergedError(
                f"parameter 'learning_rate': a rate that converges is needed; with {self.learning_rate:g} the loss is "
                f"not finite in epoch {epoch.number}; pass a lower one"
            )
        self.history.append(epoch)
        if epoch.validation_rmse is not None and epoch.validation_rmse >= self.lowest:
            return False
        self.best, self.lowest = epoch.number, math.inf if epoch.validation_rmse is None else epoch.validation_rmse
        return True

    def root(self, mean_square: float) -> float:
        """A mean square in standardised units, as a root in the unit of the ratings."""
        return self.scale * math.sqrt(mean_square)


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
    feed: BlockLoader | None = None,
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
        feed: gives the rows in place of the three columns, which are then not looked at, in batches of its own.
        validation: users, items, ratings; -1 stands for an unknown user or item.
        like_threshold: where given, every epoch is also measured by the AUC of ratings of at least this.
        on_epoch: called after each epoch; what it raises ends the training and passes through.
        progress: shows a bar on a terminal.

    Raises:
        ValueError: there are no ratings to train on or to validate on, or a code is outside its table.
        DivergedError: the loss is no longer finite.
    """
    place = torch.device(find_device(device))
    sizes = (n_users, n_items)
    supply: Supply
    if feed:
        mean, scale, supply = feed.mean, feed.scale, _Streamed(feed, place)
    else:
        need_ratings(ratings, validation)
        mean, scale = float(np.mean(ratings, dtype=np.float64)), float(np.std(ratings, dtype=np.float64))
        scale = scale or 1.0  # all ratings alike: nothing to scale, and every prediction is the mean
        rows = as_rows((users, items, ratings), mean, scale, sizes, place, unknown=False)
        supply = _Held(rows, sizes, batch_size, seed)
    held_out = validation and as_rows(validation, mean, scale, sizes, place, unknown=True)
    liked = None if validation is None or like_threshold is None else validation[2] >= like_threshold

    course = Course(epochs, patience, learning_rate, scale)
    hidden = None if progress else True  # None: shown on a terminal only
    with torch.no_grad(), steady(place), tqdm(total=epochs, disable=hidden) as bar:
        network = Network(n_users, n_items, embedding_size, place).start(torch.Generator().manual_seed(seed))
        descent = Descent(network, supply, regularization, batch_size)
        kept = [parameter.clone() for parameter in network.parameters()]
        while not course.ended:
            started = time.perf_counter()
            train_mse = descent.epoch(course.rate, course.number)
            predicted = _predictions(network, held_out) if held_out else None
            epoch = Epoch(
                course.number,
                time.perf_counter() - started,
                course.root(train_mse),
                None if predicted is None or not held_out else course.root(mean_square(predicted, held_out.ratings)),
                None if predicted is None or liked is None else auc_by_ranks(liked, predicted.cpu().numpy()),
            )
            if course.add(epoch) and held_out:
                copy(network.parameters(), kept)
            bar.set_postfix(train=epoch.train_rmse, validation=epoch.validation_rmse)
            bar.update()
            if on_epoch:
                on_epoch(epoch)
        if held_out:
            copy(kept, network.parameters())
        tables = dict(network.named_parameters())
        arrays = {name: fold(name, tables, descent, scale)[:-1].cpu().numpy() for name in ARRAYS}
        return Factors(mean, **arrays), course.history, course.best


def need_ratings(ratings: Ratings, validation: tuple[Codes, Codes, Ratings] | None) -> None:
    """Raises ValueError where there is nothing to train on, or to validate on."""
    for purpose, table in (("training", ratings), ("validation", validation and validation[2])):
        if table is not None and len(table) == 0:
            raise ValueError(f"{purpose} needs at least one rating, got 0")


def rarity(counts: Tensor, mean: float | None = None) -> Tensor:
    """(mean n / n) ** FREQUENCY_EXPONENT for rows seen n times; 1 for a row seen as often as the average."""
    average = counts[counts > 0].mean() if mean is None else mean
    return (average / counts.clamp(min=1)) ** FREQUENCY_EXPONENT


def _predictions(network: Network, rows: Rows) -> Tensor:
    """Standardised ratings of rows: (n,)."""
    parts = range(0, len(rows.ratings), PREDICTION_CHUNK)
    return torch.cat(
        [network(rows.users[s : s + PREDICTION_CHUNK], rows.items[s : s + PREDICTION_CHUNK]) for s in parts]
    )


def mean_square(predicted: Tensor, ratings: Tensor) -> float:
    """Mean square error in standardised units."""
    return float((predicted - ratings).square().sum(dtype=torch.float64)) / len(ratings)


def copy(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    """Writes tensors into others of the same shapes."""
    for a, b in zip(source, target, strict=True):
        b.copy_(a)


@contextmanager
def steady(device: torch.device) -> Iterator[None]:
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
