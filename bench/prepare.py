"""Prepare 10 million ratings, against a bare pandas read and the same group-by."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.measure import fastest, heading, table

USERS, ITEMS = 100_000, 20_000


def make_ratings(path: Path, rows: int, seed: int = 0) -> None:
    """Write a CSV of ratings whose users and items are unevenly active; some pairs repeat."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    ratings = pd.DataFrame(
        {
            "user_id": (USERS * rng.random(rows) ** 2).astype(np.int64),
            "item_id": (ITEMS * rng.random(rows) ** 2).astype(np.int64),
            "rating": rng.integers(1, 6, rows),
            "timestamp": rng.integers(1_000_000_000, 1_500_000_000, rows),
        }
    )
    ratings.to_csv(path, index=False)


def bare_pandas(path: Path) -> Callable[[], int]:
    """Read the file and compute the features' aggregates, nothing else."""
    import pandas as pd

    def work() -> int:
        ratings = pd.read_csv(path)
        for side, other in (("user_id", "item_id"), ("item_id", "user_id")):
            ratings.groupby(side).agg(
                average=("rating", "mean"), std=("rating", "std"), count=("rating", "size"), unique=(other, "nunique")
            )
        return len(ratings)

    return work


def recsys_prepare(path: Path, folder: Path) -> Callable[[], int]:
    """Read, check, clean, split, compute features and write the dataset."""
    from recsys.dataset import Preparation, prepare

    def work() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            return int(prepare(path, Preparation(ratings=str(path)), Path(target)).manifest["ratings"])

    return work


def main(rows: int, rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ratings.csv"
        make_ratings(path, rows)
        bare = fastest(bare_pandas, path, rounds=rounds)
        ours = fastest(recsys_prepare, path, Path(name), rounds=rounds)
        print(heading(f"Preparing {rows:,} ratings ({path.stat().st_size / 1e6:.0f} MB of CSV)", ["pandas", "pyarrow"]))
    print(
        table(
            ["", "seconds", "ratio", "peak GB"],
            [
                ["pandas read_csv and group-by", f"{bare.seconds:.1f}", "1.00", f"{bare.peak_gb:.2f}"],
                [
                    "prepare: read, check, clean, split, features, write",
                    f"{ours.seconds:.1f}",
                    f"{ours.seconds / bare.seconds:.2f}",
                    f"{ours.peak_gb:.2f}",
                ],
            ],
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.rows, given.rounds)
