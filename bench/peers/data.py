"""The rows that all contestants learn from and are tested on."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from sklearn.model_selection import KFold, train_test_split

from recsys.arrays import Array, Floats
from recsys.data.movielens import download

LARGE = {"synthetic-10m": (70_000, 11_000, 10_500_000)}  # as many users and items as MovieLens 10M; drawn pairs
SETS = ("movielens-100k", "synthetic", "movielens-1m", "movielens-100k-folds", "movielens-1m-folds", *LARGE)
SEED = 42  # of train_test_split: the rows on which the published figures of docs/benchmarks.md were measured
FOLDS = 5

# Of the synthetic set. Half as much noise again as MovieLens has after the best model, and few ratings per item.
N_USERS, N_ITEMS, N_DRAWN, RANK = 3_000, 2_000, 130_000, 6
STEP, NOISE = 0.5, 0.8


@dataclass(frozen=True, eq=False)
class Rows:
    """Ratings as arrays of shape (n,): ids of any kind, float64 ratings, float64 timestamps where there are some."""

    users: Array
    items: Array
    ratings: Floats
    timestamps: Floats | None = None

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: Array) -> "Rows":
        times = None if self.timestamps is None else self.timestamps[rows]
        return Rows(self.users[rows], self.items[rows], self.ratings[rows], times)


@dataclass(frozen=True, eq=False)
class Truth:
    """What the best possible model would say of the test rows: expected ratings, probabilities of a like."""

    rating: Floats
    like: Floats


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to learn from and rows to predict, the same for all."""

    name: str
    train: Rows
    test: Rows
    scale: tuple[float, float]
    like_threshold: float = 4.0
    truth: Truth | None = None

    def digest(self) -> str:
        """Names the test rows and their order: equal in runs that can be compared."""
        digest = blake2b(digest_size=4)
        for column in (self.test.users, self.test.items):
            digest.update("\n".join(map(str, column.tolist())).encode())
        digest.update(self.test.ratings.tobytes())
        return digest.hexdigest()

    def halves(self, share: float = 0.1) -> "Problem":
        """The training rows alone, parted once more: what a search learns from and what it chooses by."""
        order = np.random.default_rng(SEED).permutation(len(self.train))
        n = round(len(order) * share)
        fit, held_out = self.train[np.sort(order[n:])], self.train[np.sort(order[:n])]
        return Problem(f"{self.name}, validation", fit, held_out, self.scale, self.like_threshold)


def problems(name: str, cache: Path) -> list[Problem]:
    """The problems of a set: one, or one a fold; raises InputError if MovieLens cannot be had."""
    if name == "synthetic":
        return [synthetic()]
    if name in LARGE:
        return [synthetic(7, *LARGE[name])]
    table = movielens(name.removesuffix("-folds"), cache)
    rows = Rows(table[:, 0], table[:, 1], table[:, 2].astype(np.float64), table[:, 3].astype(np.float64))
    by_set = {"movielens-100k-folds": folds, "movielens-1m-folds": tenths}
    parts = by_set[name](len(rows)) if name in by_set else [_random_parts(len(rows))]
    names = [f"{name} {number + 1}" for number in range(len(parts))] if len(parts) > 1 else [name]
    return [
        Problem(title, rows[train], rows[test], (1.0, 5.0)) for title, (train, test) in zip(names, parts, strict=True)
    ]


def movielens(name: str, cache: Path) -> Array:
    """The table in the order it was published in, kept in `cache`: int64 of shape (n, 4)."""
    kept = cache / f"{name}.as-published.npy"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{kept.name}"
        with partial.open("wb") as file:
            np.save(file, download(name))
        partial.replace(kept)
    table: Array = np.load(kept, allow_pickle=False)
    return table


def folds(n: int) -> list[tuple[Array, Array]]:
    """GroupLens's own folds u1 to u5: the k-th fifth of u.data is the test of fold k, as their mku.sh cuts it."""
    fold = np.arange(n) * FOLDS // n
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


def tenths(n: int) -> list[tuple[Array, Array]]:
    """Ten times 90 to 10 at random, each row once in a test: what the literature measures MovieLens 1M by."""
    return list(KFold(10, shuffle=True, random_state=SEED).split(np.arange(n)))


def synthetic(seed: int = 7, n_users: int = N_USERS, n_items: int = N_ITEMS, drawn: int = N_DRAWN) -> Problem:
    """Ratings from 0.5 to 5 in half stars, of biases, six factors and normal noise; text ids, uneven activity.

    A rating is a normal value around what the factors say, cut to the scale and rounded. Its expectation and the
    probability of at least 4 follow from the normal distribution; the error of that expectation is the noise floor.
    """
    rng = np.random.default_rng(seed)
    user, item = ((n * rng.random(drawn) ** 2).astype(np.int64) for n in (n_users, n_items))
    users, items = rng.permutation(np.stack(np.divmod(np.unique(user * n_items + item), n_items), axis=1)).T
    factors = rng.normal(0, 0.45 / RANK**0.25, (n_users, RANK)), rng.normal(0, 1 / RANK**0.25, (n_items, RANK))
    biases = rng.normal(0, 0.4, n_users), rng.normal(0, 0.45, n_items)
    mean = 3.4 + biases[0][users] + biases[1][items] + (factors[0][users] * factors[1][items]).sum(1)
    low, high, threshold = STEP, 5.0, 4.0
    ratings = np.clip(np.round((mean + rng.normal(0, NOISE, len(mean))) / STEP) * STEP, low, high)

    def at_least(value: float) -> Floats:  # P(rating >= value), rounding included
        return np.asarray(ndtr((mean - (value - STEP / 2)) / NOISE), np.float64)

    expected = low + STEP * sum(at_least(value) for value in np.arange(low + STEP, high + STEP / 2, STEP))
    rows = Rows(
        np.array([f"reader-{number:05d}" for number in range(n_users)])[users],
        np.array([f"isbn/{number:04d}" for number in range(n_items)])[items],
        ratings,
    )
    train, test = _random_parts(len(rows))
    truth = Truth(np.asarray(expected, np.float64)[test], at_least(threshold)[test])
    return Problem("synthetic", rows[train], rows[test], (low, high), threshold, truth)


def _random_parts(n: int) -> tuple[Array, Array]:
    parts: Sequence[Array] = train_test_split(np.arange(n), test_size=0.2, random_state=SEED)
    return parts[0], parts[1]
