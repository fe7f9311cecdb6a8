"""A family of lists on a catalogue that EASE cannot hold: 1 million users, 100,000 items, 10 million ratings.

python -m bench.large [--rows 1e7] [--users 1e6] [--items 1e5] [--ridge R]

Made-up ratings: a user takes half of their items from a group of their own, the others by popularity. They are prepared
as a file and learnt from with default settings, in one process each; nothing is timed but the processor. What 100
million would take is reckoned: counting grows with the square of the ratings of a user, the regressions with the items,
the rest with the rows.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import heading, measure, table

GROUPS = 500
ASKED = 1e8  # rows, of the extrapolation


@dataclass
class Spent:
    """Processor seconds of the calls of a function."""

    calls: int = 0
    seconds: float = 0.0

    def timing(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are added here."""

        def timed(*arguments: Any, **more: Any) -> Any:
            begun = time.process_time()
            try:
                return work(*arguments, **more)
            finally:
                self.calls += 1
                self.seconds += time.process_time() - begun

        return timed


def make_ratings(path: Path, n_users: int, n_items: int, n_rows: int, seed: int = 0) -> None:
    """Write about so many ratings of distinct pairs as Parquet; popularity and activity are uneven."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    counts = rng.lognormal(0, 1, n_users)
    counts = np.maximum(1, np.rint(counts * n_rows / counts.sum())).astype(np.int64)
    users = np.repeat(np.arange(n_users, dtype=np.int32), counts)
    popularity = 1 / np.arange(20, n_items + 20) ** 0.8
    items = np.searchsorted(np.cumsum(popularity / popularity.sum())[:-1], rng.random(len(users))).astype(np.int32)
    group, own = rng.integers(0, GROUPS, n_users), rng.random(len(users)) < 0.5
    items = np.where(own, (items // GROUPS * GROUPS + group[users]) % n_items, items)
    pairs = np.unique(users.astype(np.int64) * n_items + items)
    rating = rng.choice(np.arange(1, 6), len(pairs), p=[0.05, 0.1, 0.2, 0.35, 0.3])
    columns = {"user_id": pairs // n_items, "item_id": pairs % n_items, "rating": rating}
    pq.write_table(pa.table(columns), path)


def preparing(path: Path, folder: Path) -> Callable[[], Any]:
    """Gives the dataset's digest and processor seconds."""
    from recsys.data.builder import prepare
    from recsys.data.preparation import Preparation

    def work() -> Any:
        begun = time.process_time()
        dataset = prepare(path, Preparation(ratings=str(path)), folder)
        return dataset.digest, time.process_time() - begun, sum(map(dataset.size, ("train", "validation", "test")))

    return work


def learning(digest: str, folder: Path, ridge: float | None) -> Callable[[], Any]:
    """Gives processor seconds, those of counting and of the regressions, what was chosen, and bytes saved."""
    from recsys.data.dataset import load_dataset
    from recsys.models.base.family import family_module
    from recsys.training import lists
    from recsys.training.trainer import train

    given = {} if ridge is None else {"ridge": ridge, "relative_ridge": 0.3}

    def work() -> Any:
        counting, solving = Spent(), Spent()
        lists.count_together = counting.timing(lists.count_together)
        lists.learn_item_to_item = solving.timing(lists.learn_item_to_item)
        begun = time.process_time()
        dataset = load_dataset(digest, folder)
        final = train("neighbourhood", dataset, family_module("neighbourhood").Config(**given), seed=0).final
        spent = time.process_time() - begun
        final.save(folder / "saved")
        size = sum(path.stat().st_size for path in (folder / "saved").rglob("*") if path.is_file())
        return spent, counting, solving, final.choices(), size

    return work


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--users", type=float, default=1e6)
    parser.add_argument("--items", type=float, default=1e5)
    parser.add_argument("--ridge", type=float, help="instead of choosing it, and the relative one, on validation")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        path, folder = Path(name) / "ratings.parquet", Path(name) / "prepared"
        make_ratings(path, int(given.users), int(given.items), int(given.rows))
        prepared = measure(preparing, path, folder)
        digest, spent, rows = prepared.result
        print(heading("A large catalogue", ["numpy", "scipy"]))
        print(f"{rows:,} ratings; prepare: {spent:.0f} s of processor time, {prepared.peak_gb:.1f} GB\n", flush=True)
        learnt = measure(learning, digest, folder, given.ridge)
    spent, counting, solving, chosen, size = learnt.result
    rest, times = spent - counting.seconds - solving.seconds, ASKED / rows
    later = counting.seconds * times**2, solving.seconds, rest * times
    columns = ("", f"counting, {counting.calls} times", f"regressions, {solving.calls} times", "the rest", "all")
    lines = [
        [
            f"{rows:,} ratings, measured",
            *(f"{value:,.0f}" for value in (counting.seconds, solving.seconds, rest, spent)),
        ],
        [f"{ASKED:,.0f} ratings, reckoned", *(f"{value:,.0f}" for value in (*later, sum(later)))],
    ]
    print("Processor seconds of train:\n\n" + table(columns, lines))
    print(f"At the peak {learnt.peak_gb:.1f} GB; the version has {size / 1e6:,.0f} MB; chosen: {chosen}")


if __name__ == "__main__":
    main()
