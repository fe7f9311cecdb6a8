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
