"""Training speed: fit_factors against the loop of the textbooks, on the same ratings in the same run.

Rows/s are training rows of all epochs divided by the seconds of the fit. fit_factors is measured whole: its
set-up and the validation of each epoch count. The classic loop is stopped after a number of batches, since
its speed does not change from batch to batch; its set-up and validation are left out, in its favour. It is
measured twice: with a Dataset that holds tensors, as most tutorials write it, and with one that holds NumPy
arrays, which hands out single rows several times faster.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench.measure import heading, table
from recsys.data.interactions import Interactions
from recsys.data.movielens import obtain
from recsys.data.ratings import read_ratings
from recsys.models.matrix_factorization.compiled import fit_factors
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.training import Problem
from steps.support.entrypoint import data_folder

Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
CLASSIC_BATCH = 1024


class SingleRows(Dataset[tuple[Any, Any, Any]]):
    """One rating at a time, from three tensors or three arrays."""

    def __init__(self, users: Any, items: Any, ratings: Any) -> None:
        self.users, self.items, self.ratings = users, items, ratings

    def __len__(self) -> int:
        """Number of ratings."""
        return len(self.ratings)

    def __getitem__(self, row: int) -> tuple[Any, Any, Any]:
        """User code, item code and rating."""
        return self.users[row], self.items[row], self.ratings[row]


class ClassicNetwork(nn.Module):
    """Linear(p_u ⊙ q_i) over two nn.Embedding."""

    def __init__(self, n_users: int, n_items: int, embedding_size: int) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users, embedding_size)
        self.items = nn.Embedding(n_items, embedding_size)
        self.head = nn.Linear(embedding_size, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Two (batch,) code tensors in, (batch,) ratings out."""
        rating: Tensor = self.head(self.users(users) * self.items(items)).squeeze(1)
        return rating


def classic_speed(columns: Columns, embedding_size: int, batches: int, *, tensors: bool) -> float:
    """Rows/s of DataLoader, autograd and dense Adam over so many batches, after five to warm up."""
    warm_up, (users, items) = 5, columns[:2]
    held = users, items, columns[2].astype(np.float32)
    rows = SingleRows(*(map(torch.from_numpy, held) if tensors else held))
    network = ClassicNetwork(int(users.max()) + 1, int(items.max()) + 1, embedding_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    started, done = time.perf_counter(), 0
    for number, (u, i, ratings) in enumerate(DataLoader(rows, batch_size=CLASSIC_BATCH, shuffle=True)):
        if number == warm_up:
            started, done = time.perf_counter(), 0
        optimizer.zero_grad()
        nn.functional.mse_loss(network(u, i), ratings).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += len(ratings)
        if number + 1 == warm_up + batches:
            break
    return done / (time.perf_counter() - started)


def fit_speed(columns: Columns, embedding_size: int, epochs: int) -> float:
    """Rows/s of a whole fit with the default settings, a tenth of the rows held out for validation."""
    ratings = Interactions(*columns)
    sizes = int(ratings.users.max()) + 1, int(ratings.items.max()) + 1
    out = np.random.default_rng(0).random(len(ratings)) < 0.1
    rows, held_out = ratings[~out], ratings[out]
    started = time.perf_counter()
    config = Config(embedding_size=embedding_size, epochs=epochs, device="cpu")
    _, history, _ = fit_factors(Problem(rows, sizes, config, seed=0, validation=held_out))
    return len(rows) * len(history) / (time.perf_counter() - started)


def main(name: str, embedding_size: int, epochs: int, batches: int, rounds: int) -> None:
    """Measure the loops turn by turn, the best of some rounds each, and print the table."""
    ratings = read_ratings(obtain(name, data_folder() / "downloads"))
    rows = ratings.load()
    columns = rows.users.astype(np.int64), rows.items.astype(np.int64), rows.values
    loops: dict[str, Callable[[], float]] = {
        "fit_factors, with validation": lambda: fit_speed(columns, embedding_size, epochs),
        "classic loop over rows of tensors": lambda: classic_speed(columns, embedding_size, batches, tensors=True),
        "classic loop over rows of NumPy arrays": lambda: classic_speed(
            columns, embedding_size, batches, tensors=False
        ),
    }
    # Turn by turn, so that a busy minute of the machine meets all; the best, so that it counts for none.
    turns = [[measure() for measure in loops.values()] for _ in range(rounds)]
    speeds = [max(turn[loop] for turn in turns) for loop in range(len(loops))]
    print(heading(f"Training on {name}, {embedding_size} factors, rows/s", ["torch", "numpy"]))
    rows = [[loop, f"{speed:,.0f}", f"{speeds[0] / speed:.0f}"] for loop, speed in zip(loops, speeds, strict=True)]
    print(table(["", "rows/s", "fit_factors is faster by"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", default="movielens-1m")
    parser.add_argument("--embedding-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20, help="of fit_factors")
    parser.add_argument("--batches", type=int, default=100, help="of the classic loop")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.ratings, given.embedding_size, given.epochs, given.batches, given.rounds)
