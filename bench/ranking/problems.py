"""The rows that all learn from, choose by and are tested on, as codes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.arrays import Array, Codes
from recsys.data import builder
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation

SEEDS = 5  # of the split within users
_TEST_SHARE, _VALIDATION_SHARE = 0.25, 0.1
LIKE, ANY = 4.0, 1.0  # a rating of at least this is relevant


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows of users and items from 0 on, and which of the test rows are relevant: ratings of at least `relevant`."""

    name: str
    train: Interactions
    validation: Interactions
    test: Interactions
    shape: tuple[int, int]
    relevant: float


def hash_split(dataset: Dataset, relevant: float) -> Iterator[Problem]:
    """The parts that `prepare` makes."""
    yield _problem("hash", dataset, dataset.train, dataset.validation, dataset.test, relevant)


def within_users(dataset: Dataset, relevant: float) -> Iterator[Problem]:
    """A quarter of each user's ratings, drawn: the split of the benchmark of recommenders (Microsoft)."""
    rows = _all_rows(dataset)
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        test = _drawn_within(rows.users, rng, _TEST_SHARE)
        held = np.zeros(len(rows), bool)
        held[np.flatnonzero(~test)] = rng.random(int((~test).sum())) < _VALIDATION_SHARE
        parts = (rows[np.flatnonzero(kept)] for kept in (~test & ~held, held, test))
        yield _problem(f"75/25, seed {seed}", dataset, *parts, relevant)


def leave_one_out(dataset: Dataset, relevant: float) -> Iterator[Problem]:
    """Each user's newest rating, and for validation the one before; of one time, by item."""
    rows = _all_rows(dataset)
    assert rows.timestamps is not None
    order = np.lexsort((rows.items, rows.timestamps, rows.users))
    rows = rows[order]
    from_end = np.searchsorted(rows.users, rows.users, "right") - np.arange(len(rows))
    parts = (rows[np.flatnonzero(kept)] for kept in (from_end > 2, from_end == 2, from_end == 1))
    yield _problem("leave one out", dataset, *parts, relevant)


@dataclass(frozen=True)
class Protocol:
    """A data set, how it is split, and what counts."""

    title: str
    ratings: str
    split: Callable[[Dataset, float], Iterator[Problem]]
    relevant: float

    def problems(self, cache: Path) -> list[Problem]:
        """One, or one a seed."""
        preparation = Preparation(ratings=self.ratings)
        source = obtain(self.ratings, cache / "downloads")
        return list(self.split(builder.prepare(source, preparation, cache / "prepared"), self.relevant))


PROTOCOLS = {
    "100k-hash": Protocol("MovieLens 100K, hash split, likes count", "movielens-100k", hash_split, LIKE),
    "1m-hash": Protocol("MovieLens 1M, hash split, likes count", "movielens-1m", hash_split, LIKE),
    "100k-75-25": Protocol(
        "MovieLens 100K, 75/25 within users, mean of five draws, every rating counts",
        "movielens-100k",
        within_users,
        ANY,
    ),
    "100k-75-25-likes": Protocol(
        "MovieLens 100K, 75/25 within users, mean of five draws, likes count", "movielens-100k", within_users, LIKE
    ),
    "1m-leave-one-out": Protocol(
        "MovieLens 1M, each user's newest rating, whatever it is", "movielens-1m", leave_one_out, ANY
    ),
}


def _problem(
    name: str, dataset: Dataset, train: Interactions, validation: Interactions, test: Interactions, relevant: float
) -> Problem:
    shape = len(dataset.user_ids), len(dataset.item_ids)
    return Problem(name, train, validation, test, shape, relevant)


def _all_rows(dataset: Dataset) -> Interactions:
    return dataset.train.joined(dataset.validation).joined(dataset.test)


def _drawn_within(users: Codes, rng: np.random.Generator, share: float) -> Array:
    """Which rows are drawn: of each user's n, round(share * n)."""
    order = np.lexsort((rng.random(len(users)), users))
    whose = users[order]
    first = np.searchsorted(whose, whose)
    size = np.searchsorted(whose, whose, "right") - first
    drawn = np.zeros(len(users), bool)
    drawn[order] = np.arange(len(users)) - first < np.round(share * size)
    return drawn
