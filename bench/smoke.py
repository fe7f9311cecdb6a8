"""Whether something has become much slower: what the parts take, against a reference loop in the same process.

A ratio to a loop that nobody changes says little of the machine and much of the code. What has less than two thirds of
the speed in smoke.json is told as a warning, and fails nothing; `--record` writes the file anew.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import numba
import numpy as np
from scipy.sparse import csr_matrix

from bench.measure import table
from recsys.data.builder import prepare
from recsys.data.interactions import Interactions
from recsys.data.preparation import Preparation
from recsys.models.base.item_to_item import Regression, count_together, learn_item_to_item
from recsys.models.bayesian_mf.config import Config as BayesianConfig
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.matrix_factorization.compiled import CompiledEngine
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.training import Problem
from recsys.runtime.blas import one_thread
from recsys.runtime.threads import one_by_one
from recsys.testing.datasets import write_rows
from recsys.training.trainer import train

FIGURES = Path(__file__).with_name("smoke.json")
FALLEN = 2 / 3  # of the speed written down
_ROUNDS = 5
_USERS, _ITEMS, _ROWS = 2_000, 600, 100_000
_REFERENCE = "reference"
Work = Callable[[], object]


@numba.njit
def _descend(users: np.ndarray, items: np.ndarray, ratings: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """Matrix factorization as a textbook has it. It stays as it is: all figures refer to it."""
    total = 0.0
    for row in range(len(users)):
        of_user, of_item = p[users[row]], q[items[row]]
        error = ratings[row] - 3
        for k in range(len(of_user)):
            error -= of_user[k] * of_item[k]
        total += error * error
        for k in range(len(of_user)):
            before = of_user[k]
            of_user[k] += 0.01 * error * of_item[k]
            of_item[k] += 0.01 * error * before
    return total


def make_works(folder: Path) -> dict[str, Work]:
    """What is timed, by name, the reference first."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(_USERS * _ITEMS, _ROWS, replace=False)
    users, items = (codes.astype(np.int32) for codes in np.divmod(pairs, _ITEMS))
    liking = rng.normal(size=_USERS)[users] + rng.normal(size=_ITEMS)[items] + 2 * rng.normal(size=_ROWS)
    rows = Interactions(users, items, np.clip(np.rint(3 + liking / 2), 1, 5))
    tables = [rng.normal(size=(size, 32)) / 10 for size in (_USERS, _ITEMS)]
    source = write_rows(folder / "ratings.csv", zip(users, items, rows.ratings, strict=True))
    names = map(str, count())
    dataset = prepare(source, Preparation(), folder / next(names))
    trained = train("matrix_factorization", dataset, Config(epochs=5), seed=0).final
    sizes = len(dataset.user_ids), len(dataset.item_ids)
    scored = [rng.integers(0, size, _ROWS).astype(np.int32) for size in sizes]
    taken = csr_matrix((np.ones(_ROWS, np.float32), (users, items)), (_USERS, _ITEMS))
    engine = CompiledEngine(Problem(rows, (_USERS, _ITEMS), Config(embedding_size=32), seed=0)).initialize()
    engine.use_threads(1)  # as all that is timed
    chain = Chain(rows, (_USERS, _ITEMS), BayesianConfig(embedding_size=30, device="cpu"), seed=0)

    def sweep() -> None:
        with one_thread():
            chain.sweep(one_by_one)

    for _ in range(chain.warm_up.start):
        sweep()
    return {
        _REFERENCE: lambda: _descend(users, items, rows.ratings, *tables),
        "prepare 100,000 ratings": lambda: prepare(source, Preparation(), folder / next(names)),
        "matrix_factorization: an epoch, 32 factors": lambda: engine.run_epoch(0.01, 0),
        "bayesian_mf: a sweep, 30 factors": sweep,
        "item-to-item weights of 600 items": lambda: learn_item_to_item(
            count_together(taken), Regression("likes", 200.0, 0.3)
        ),
        "score 100,000 pairs": lambda: trained.score(*scored),
        "lists of ten for 200 users": lambda: trained.recommend(dataset.user_ids[:200], 10),
    }


def measure(works: Mapping[str, Work]) -> dict[str, float]:
    """How fast each is: processor time of the reference over its own, each the least of some rounds in turn."""
    least = dict.fromkeys(works, float("inf"))
    for number in range(_ROUNDS + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if number:  # the first compiles, and reads files
                least[name] = min(least[name], time.process_time() - started)
    return {name: least[_REFERENCE] / seconds for name, seconds in least.items() if name != _REFERENCE}


def warnings_of(speeds: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    """A line for each work that has fallen by a third, or of which nothing is known."""
    told = []
    for name, speed in speeds.items():
        if name not in known:
            told.append(f"{name}: no figure in {FIGURES.name}; python -m bench.smoke --record")
        elif speed < FALLEN * known[name]:
            told.append(f"{name}: {speed / known[name]:.0%} of its speed in {FIGURES.name}, against the reference loop")
    return told


def main() -> None:
    """Measure, and compare or record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {FIGURES.name} anew")
    record = parser.parse_args().record
    with tempfile.TemporaryDirectory() as folder:
        speeds = measure(make_works(Path(folder)))
    known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    rows = [[name, f"{speed:.3g}", f"{known.get(name, float('nan')):.3g}"] for name, speed in speeds.items()]
    print(table(["speed, reference loop = 1", "now", FIGURES.name], rows))
    if record:
        rounded = {name: float(f"{speed:.3g}") for name, speed in speeds.items()}
        FIGURES.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
        return
    for line in warnings_of(speeds, known):
        print(f"warning: {line}")


if __name__ == "__main__":
    main()
