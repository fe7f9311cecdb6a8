"""Prepare 1, 10 and 100 million ratings, kept in memory and on disk, against a bare pandas read and group-by."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.measure import Measurement, fastest, heading, table

USERS, ITEMS = 100_000, 20_000
MOST_IN_MEMORY = 20_000_000  # rows; pandas takes about 100 bytes for each, and the group-by as much again

_CHUNK = 1_000_000


def make_ratings(path: Path, rows: int, seed: int = 0) -> None:
    """Write a CSV of ratings whose users and items are unevenly active; some pairs repeat.

    The same rows and seed give the same file, and fewer rows its beginning.
    """
    import pyarrow as pa
    import pyarrow.csv

    with path.open("wb") as file:
        for start in range(0, rows, _CHUNK):
            rng = np.random.default_rng([seed, start])
            columns = {
                "user_id": (USERS * rng.random(_CHUNK) ** 2).astype(np.int64),
                "item_id": (ITEMS * rng.random(_CHUNK) ** 2).astype(np.int64),
                "rating": rng.integers(1, 6, _CHUNK),
                "timestamp": rng.integers(1_000_000_000, 1_500_000_000, _CHUNK),
            }
            header = pa.csv.WriteOptions(include_header=start == 0, quoting_style="none")
            pa.csv.write_csv(pa.table(columns).slice(0, rows - start), file, header)


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


def recsys_prepare(path: Path, folder: Path, gigabytes: float) -> Callable[[], int]:
    """Read, check, clean, split, compute features and write the dataset; with 0 gigabytes the rows are kept on disk."""
    from recsys.data.builder import prepare
    from recsys.data.preparation import Preparation

    def work() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            dataset = prepare(path, Preparation(ratings=str(path)), Path(target), gigabytes=gigabytes)
            return int(dataset.manifest["ratings"])

    return work


def main(sizes: Sequence[int], rounds: int, folder: Path | None) -> None:
    """Measure and print."""
    lines: list[list[str]] = []
    first: dict[str, float] = {}

    def add(rows: int, way: str, done: Measurement) -> None:
        each = done.seconds / rows * 1e6
        ratio = each / first.setdefault(way, each)
        lines.append([f"{rows:,}", way, f"{done.seconds:.1f}", f"{each:.2f}", f"{ratio:.2f}", f"{done.peak_gb:.2f}"])

    for rows in sizes:
        times = rounds if rows <= MOST_IN_MEMORY else 1
        with tempfile.TemporaryDirectory(dir=folder) as name:
            path = Path(name) / "ratings.csv"
            make_ratings(path, rows)
            if rows <= MOST_IN_MEMORY:
                add(rows, "pandas: read_csv and group-by", fastest(bare_pandas, path, rounds=times))
                add(rows, "prepare, rows in memory", fastest(recsys_prepare, path, Path(name), 1e3, rounds=times))
            add(rows, "prepare, rows on disk", fastest(recsys_prepare, path, Path(name), 0.0, rounds=times))
    print(heading("Preparing", ["pandas", "pyarrow"]))
    print(table(["rows", "", "seconds", "µs a row", "to the fewest rows", "peak GB"], lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1e6,1e7,1e8", help="how many, by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is disk enough: 10 GB for 1e8 rows")
    given = parser.parse_args()
    main([int(float(rows)) for rows in given.rows.split(",")], given.rounds, given.folder)
