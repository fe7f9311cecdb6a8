"""Lists in this process: one at a time, many into a file, and all users of MovieLens 1M.

`python -m bench.lists [one] [many] [movielens]`; the last one trains first.
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import heading, table
from bench.peers.environments import CACHE
from recsys.arrays import Array
from recsys.data.builder import prepare
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.family import family_module
from recsys.models.base.item_to_item import ItemToItem, Regression
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.lists import ListModel, RatedItems
from recsys.models.base.recommender import Recommender
from recsys.models.matrix_factorization.family import Config, FactorRecommender
from recsys.serving.batch import Order, write_lists
from recsys.training.trainer import train

RANK, ASKED = 32, 400
SIZES = ((2_000, 3_706, 1_000, 100), (2_000, 100_000, 100, 100))  # users, items, weights an item, history
MANY = (1_000_000, 50_000, 100, 50)
LISTED = 20_000  # of the users of MANY


def synthetic(n_users: int, n_items: int, kept: int, history: int, seed: int = 0) -> Recommender:
    """A recommender of random factors and weights, whose histories hold popular items more often."""
    random = np.random.default_rng(seed)

    def distinct(rows: int, size: int) -> Array:
        """`size` ascending codes a row, without repeats: one of each of `size` ranges of skewed widths."""
        edges = np.floor(n_items * np.linspace(0, 1, size + 1) ** 2).astype(np.int64) + np.arange(size + 1)
        edges = np.minimum(edges, n_items - size + np.arange(size + 1))
        return (edges[:-1] + random.random((rows, size), np.float32) * np.diff(edges)).astype(np.int32)

    names = [
        np.array(sorted(f"{kind}{at}" for at in range(size)), object) for kind, size in (("u", n_users), ("i", n_items))
    ]
    items = distinct(n_users, history).ravel()
    rated = RatedItems(
        np.arange(n_users + 1, dtype=np.int64) * history,
        items,
        random.integers(1, 6, len(items), np.int8).astype(np.float32),
    )
    weights = ItemToItem(
        np.arange(n_items + 1, dtype=np.int64) * kept,
        np.concatenate([distinct(1000, kept).ravel() for _ in range(0, n_items, 1000)])[: n_items * kept],
        (random.random(n_items * kept, np.float32) - np.float32(0.3)) ** 3,
    )
    seen = np.stack([np.repeat(np.arange(n_users, dtype=np.int32), history), items], axis=1)
    biases = Biases(3.5, random.normal(0, 0.3, n_users), random.normal(0, 0.3, n_items))
    knowledge = Knowledge(*names, seen, (1.0, 5.0), 4.0, biases, LikeCalibration(2.0, -7.0))
    arrays = {
        "user_factors": random.normal(0, 0.3, (n_users, RANK)).astype(np.float32),
        "item_factors": random.normal(0, 0.3, (n_items, RANK)).astype(np.float32),
        "user_bias": biases.user,
        "item_bias": biases.item,
    }
    made = FactorRecommender(knowledge, Config(), arrays, 3.5, 1, knowledge.calibration)
    popularity = np.bincount(items, minlength=n_items) / n_users
    made.lists = ListModel(weights, Regression("ratings", 400.0, 0.3), 0.5, rated, popularity)
    return made


def one() -> None:
    """Print how long one list takes."""
    rows = []
    for n_users, n_items, kept, history in SIZES:
        recommender = synthetic(n_users, n_items, kept, history)
        users = [recommender.knowledge.user_ids[at : at + 1] for at in range(ASKED)]
        recommender.recommend(users[0])
        wall, spent = _times(recommender.recommend, users)
        shares = [f"{1000 * value:.2f}" for value in (*np.percentile(wall, [50, 99]), np.median(spent))]
        rows.append((f"{n_items:,}", kept, history, *shares))
    columns = ("items", "weights an item", "history", "ms p50", "ms p99", "processor ms p50")
    print("\n" + table(columns, rows))


def _times(work: Callable[[Any], object], arguments: list[Any]) -> tuple[list[float], list[float]]:
    wall, spent = [], []
    for argument in arguments:
        before = time.perf_counter(), time.thread_time()
        work(argument)
        wall.append(time.perf_counter() - before[0])
        spent.append(time.thread_time() - before[1])
    return wall, spent


def many() -> None:
    """Print how many users a second are listed into a file, and the memory that this adds."""
    n_users, n_items, kept, history = MANY
    recommender = synthetic(n_users, n_items, kept, history)
    recommender.recommend(recommender.knowledge.user_ids[:1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter(), time.process_time()
        users = recommender.knowledge.user_ids[:LISTED]
        write_lists(recommender, users, Order(10), Path(folder) / "lists.parquet", "bench")
        wall, spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
    row = (f"{n_users:,}", f"{n_items:,}", f"{LISTED:,}", f"{LISTED / wall:,.0f}", f"{LISTED / spent:,.0f}")
    columns = ("users", "items", "listed", "users/s", "users a processor second", "GB of the version", "GB added")
    print("\n" + table(columns, [(*row, f"{before:.2f}", f"{_peak() - before:.2f}")]))


def _peak() -> float:
    """GB of memory that this process held at most since the peak began anew."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024 / 1e9


def movielens() -> None:
    """Print how long the file of all users of MovieLens 1M takes, beside training the version."""
    source = obtain("movielens-1m", CACHE / "downloads")
    dataset = prepare(source, Preparation(ratings="movielens-1m"), CACHE / "prepared")
    recommender = train("bayesian_mf", dataset, family_module("bayesian_mf").Config(), seed=42).final
    users = recommender.knowledge.user_ids
    recommender.recommend(users[:1])
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter(), time.process_time()
        write_lists(recommender, users, Order(10), Path(folder) / "lists.parquet", "bench")
        wall, spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
    assert recommender.lists is not None
    row = (f"{len(users):,}", recommender.lists.exponent, f"{wall:.1f}", f"{spent:.1f}")
    print("\n" + table(("users of MovieLens 1M", "exponent", "s", "processor s"), [row]))


if __name__ == "__main__":
    parts = {"one": one, "many": many, "movielens": movielens}
    print(heading("Lists", ["numpy", "scipy"]))
    for name in sys.argv[1:] or parts:
        parts[name]()
