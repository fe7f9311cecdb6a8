"""The Gibbs sampler: what a sweep costs, beside the machine's rate of products, and what samples buy.

Rows: those that scikit-learn's train_test_split(test_size=0.2, random_state=42) makes of the file, as the peers are
measured on. Times of single parts are of one thread, as each thread of a sweep works on products of its own.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from sklearn.model_selection import train_test_split

from bench.measure import heading, table
from bench.peers.data import problems, synthetic
from bench.peers.environments import CACHE
from bench.peers.models.ours import load
from recsys.data.interactions import Interactions
from recsys.data.movielens import obtain
from recsys.data.ratings import read_ratings
from recsys.models.bayesian_mf import gibbs
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.sessions import cut_sessions
from recsys.runtime.threads import one_by_one, workers
from recsys.training.trainer import train
from steps.support.entrypoint import data_folder

CPU = "cpu"


@dataclass(frozen=True)
class Split:
    """Training and test columns: users, items, ratings, timestamps."""

    train: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    sizes: tuple[int, int]

    def chain(self, embedding_size: int, seed: int = 0) -> Chain:
        """A chain with the implicit term and the time term."""
        users, items, ratings, timestamps = self.train
        sessions, session_of = cut_sessions(users, timestamps)
        rows = Interactions(users, items, ratings)
        chain = Chain(rows, self.sizes, Config(embedding_size=embedding_size, device="cpu"), seed)
        chain.add_sessions(sessions.users, session_of)
        chain.add_implicit()
        return chain


def split(name: str) -> Split:
    """The rows of a data set, 80 to 20."""
    ratings = read_ratings(obtain(name, data_folder() / "downloads"))
    rows = ratings.load()
    columns = rows.users, rows.items, rows.values, rows.timestamps
    train, test = train_test_split(np.arange(len(ratings)), test_size=0.2, random_state=42)
    sizes = len(ratings.users), len(ratings.items)
    return Split(tuple(c[train] for c in columns), tuple(c[test] for c in columns), sizes)


def least(work: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def sgemm_rate() -> float:
    """GFLOP/s of one large single-precision product on one thread."""
    square = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    return 2 * 2048**3 / least(lambda: square @ square) / 1e9


def kernel_rate(chain: Chain) -> tuple[float, float]:
    """Milliseconds of processor time that the draws of a sweep's rows take, and their Gram products' GFLOP/s."""
    seconds = 0.0
    for entity, other in ((chain.users, chain.items), (chain.items, chain.users)):
        with workers(CPU):
            seconds += least(lambda entity=entity, other=other: chain._draw_factors(entity, other, False, one_by_one))  # type: ignore[misc]
    return 1e3 * seconds, 2 * chain.n * (chain.size + 2) * (chain.size + 3) / seconds / 1e9


def sweeps(data: Split, dimensions: list[int]) -> None:
    """Milliseconds a sweep, and the rate of its products, by number of factors."""
    rows = []
    for dimension in dimensions:
        with workers(CPU) as each:
            chain = data.chain(dimension)
            for _ in range(chain.warm_up.start + 2):
                chain.sweep(each)
            milliseconds = 1e3 * least(lambda: chain.sweep(each), 8)  # noqa: B023  # called at once
            (draws, gram), sgemm = kernel_rate(chain), sgemm_rate()
        figures = f"{milliseconds:.1f}", f"{draws:.1f}", f"{gram:.0f}", f"{sgemm:.0f}"
        rows.append([dimension, *figures])
    columns = ["factors", "ms a sweep", "ms of its draws on one thread", "their GFLOP/s", "sgemm GFLOP/s"]
    print(table(columns, rows))


def accuracy(data: Split, dimension: int, target: float, samples: list[int]) -> None:
    """Seconds from nothing to a test RMSE; RMSE and AUC of the mean of so many kept draws, asked without times."""
    from recsys.models.bayesian_mf.mcmc import HeldOut, HeldOutPredictions

    users, items, ratings, timestamps = data.test
    started = time.perf_counter()
    chain = data.chain(dimension)
    spent, reached, rows = time.perf_counter() - started, "not reached", []
    held_out = HeldOut(
        Interactions(users, items, ratings, timestamps),
        np.ones(len(users), bool),
        np.full(len(users), chain.centre),
        ratings >= 4,
        (ratings.min(), ratings.max()),
    )
    with workers(CPU) as each:
        predictions = HeldOutPredictions(chain, held_out, each)
        while predictions.kept < max(samples):
            started = time.perf_counter()
            chain.sweep(each)
            spent += time.perf_counter() - started
            _, rmse, auc = predictions.add_sweep(keep=chain.sweeps > chain.warm_up.start + chain.warm_up.burn_in)
            if reached == "not reached" and rmse <= target:
                reached = f"{spent:.2f} s, sweep {chain.sweeps}"
            if auc is not None and predictions.kept in samples:
                rows.append([predictions.kept, f"{rmse:.4f}", f"{auc:.4f}", chain.sweeps, f"{spent:.2f}"])
    print(f"{dimension} factors: test RMSE {target:g} after {reached}\n")
    print(table(["draws kept", "RMSE", "AUC of the mean", "sweeps", "seconds"], rows))


def starts(names: list[str], penalties: list[float], seeds: int) -> None:
    """RMSE on a tenth of the training rows by the penalty of the chain's start, each a mean over seeds.

    Test rows are not looked at. Of the synthetic sets each seed is another set, of MovieLens another chain.
    """
    rows = []
    for name in names:
        found = np.array([[_validation_rmse(name, penalty, seed) for seed in range(seeds)] for penalty in penalties])
        rows.append([name, *(f"{mean:.4f}" for mean in found.mean(1))])
    print(table(["set", *(f"penalty {penalty:g}" for penalty in penalties)], rows))


def _validation_rmse(name: str, penalty: float, seed: int) -> float:
    sizes = {"synthetic": (3000, 2000, 130_000), "synthetic, small": (700, 500, 20_000)}
    known = name in sizes
    problem = synthetic(100 + seed, *sizes[name]) if known else problems(name, CACHE)[0]
    rows = problem.train
    rows = SimpleNamespace(**vars(rows), scale=problem.scale, like_threshold=problem.like_threshold)
    heard: list[float] = []
    gibbs.START_PRECISION, before = penalty, gibbs.START_PRECISION
    try:
        config = Config(implicit="false" if known else "true", time="false")
        report = lambda _, metrics: heard.append(metrics["validation_rmse"])  # noqa: E731
        train("bayesian_mf", load(rows), config, seed=seed, refit=False, report=report)
    finally:
        gibbs.START_PRECISION = before
    return heard[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", default="movielens-1m")
    parser.add_argument("--target", type=float, default=0.8496, help="test RMSE to time")
    parser.add_argument("--factors", type=int, default=30, help="of the chain whose accuracy is followed")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[14, 30, 62, 64])
    parser.add_argument("--samples", type=int, nargs="*", default=[1, 2, 5, 10, 20, 40, 80])
    parser.add_argument("--starts", nargs="*", help="compare starts of the chain on these sets, and nothing else")
    parser.add_argument("--penalties", type=float, nargs="*", default=[4, 8, 12, 25])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.starts is not None:
        starts(given.starts or ["movielens-100k", "synthetic", "synthetic, small"], given.penalties, given.seeds)
        sys.exit()
    data = split(given.ratings)
    print(heading(f"Gibbs sampling on {given.ratings}", ["numpy", "numba"]))
    sweeps(data, given.dimensions)
    accuracy(data, given.factors, given.target, given.samples)
