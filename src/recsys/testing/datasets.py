"""Small datasets, made through the real `prepare`."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from recsys.data import builder
from recsys.data.dataset import Dataset
from recsys.data.preparation import Preparation

Row = Sequence[object]
"""user, item, rating and perhaps timestamp."""


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as a ratings file with a header; returns its path."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["user_id", "item_id", "rating", "timestamp"][: len(rows[0])], *rows])
    return path


def prepared(folder: Path, rows: Iterable[Row], **parameters: object) -> Dataset:
    """The dataset that `prepare` makes of these rows; every rating is kept whatever its sign."""
    source = write_rows(folder / "ratings.csv", rows)
    preparation = Preparation.model_validate({"min_rating": "none", **parameters})
    return builder.prepare(source, preparation, folder / "prepared")


def rated(
    users: int, items: int, low: float, high: float, *, share: float = 0.5, step: float = 0, seed: int = 0
) -> list[tuple[str, str, float]]:
    """Rows of `share` of all pairs, rated by additive user and item effects that span the scale.

    Args:
        step: ratings are rounded to multiples of it; 0 leaves them continuous.
    """
    rng = np.random.default_rng(seed)
    taste, quality = rng.uniform(0, 1, users), rng.uniform(0, 1, items)
    rows = []
    for user in range(users):
        for item in np.flatnonzero(rng.uniform(size=items) < share):
            rating = low + (high - low) * (taste[user] + quality[item]) / 2
            rows.append((f"u{user}", f"i{item}", float(round(rating / step) * step if step else rating)))
    return rows


def sparse_ratings(
    users: int,
    items: int,
    *,
    median: float = 2,
    constant: float = 0.5,
    top: float = 0.6,
    levels: Sequence[float] = (1, 2, 3, 4, 5),
    signal: float = 0.5,
    seed: int = 0,
) -> list[tuple[str, str, float]]:
    """Rows as shops collect them: few ratings a user, most of them the highest level, items of uneven popularity.

    An opinion is a user bias, an item bias, an inner product of two factors and noise. It is cut to levels.

    Args:
        median: ratings of the median user. Numbers of ratings are log-normal, at least 1 and at most `items`.
        constant: share of users who always give the level of their first opinion.
        top: share of opinions at the highest level. Each lower level has 0.4 times the ratings of the one above it.
        signal: standard deviation of what the factors say, where the noise has 0.8 and each bias 0.5; 0: biases only.
    """
    rng = np.random.default_rng(seed)
    counts = np.clip(np.rint(median * np.exp(rng.normal(size=users))), 1, items).astype(int)
    popularity = 1 / np.arange(5, items + 5) ** 0.8
    popularity /= popularity.sum()
    rated_items = [rng.choice(items, count, replace=False, p=popularity) for count in counts]
    user, item = np.repeat(np.arange(users), counts), np.concatenate(rated_items)
    p, q = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    opinion = rng.normal(size=users)[user] * 0.5 + rng.normal(size=items)[item] * 0.5
    opinion += signal * (p[user] * q[item]).sum(1) / 2**0.5 + rng.normal(size=len(user)) * 0.8
    shares = 0.4 ** np.arange(1, len(levels))[::-1]
    cuts = np.quantile(opinion, np.cumsum(shares / shares.sum() * (1 - top)))
    level = np.searchsorted(cuts, opinion)
    first = np.cumsum(counts) - counts
    level = np.where((rng.random(users) < constant)[user], level[first][user], level)
    return [(f"u{u}", f"i{i}", float(levels[at])) for u, i, at in zip(user, item, level, strict=True)]
