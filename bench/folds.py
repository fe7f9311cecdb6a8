"""bayesian_mf on published folds: GroupLens's five of MovieLens 100K, ten times 90 to 10 of MovieLens 1M.

python -m bench.folds [--sets …] [--folds 1,2] [--lines …]

Each fold that is measured is kept in bench/results/folds/, and the table is of all that are kept: so folds may be
measured by several commands, one after the other. Asked with the test rows' timestamps, as the literature has it, and
without, as a server asks.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.measure import PROJECT, heading, table
from bench.peers.contest import score
from bench.peers.contestants import ours
from bench.peers.data import Problem, problems
from bench.peers.environments import CACHE
from bench.peers.models import ours as families

RESULTS = PROJECT / "bench" / "results" / "folds"
SETS = ("movielens-100k-folds", "movielens-1m-folds")
LINES = ("bayesian_mf time=false", "bayesian_mf time=true")
ASKED = {"with timestamps": True, "without": False}


def measure(problem: Problem, line: str, seed: int) -> dict[str, Any]:
    """RMSE, AUCs of the test rows by how they are asked for, and processor seconds of the fit."""
    rows = SimpleNamespace(**vars(problem.train), scale=problem.scale, like_threshold=problem.like_threshold)
    data = families.load(rows)
    begun = time.process_time()
    predict = families.fit(data, dict(ours(line).fixed), seed)
    found: dict[str, Any] = {"processor_seconds": round(time.process_time() - begun, 1), "test": problem.digest()}
    for asked, timed in ASKED.items():
        times = problem.test.timestamps if timed else None
        said = predict(SimpleNamespace(users=problem.test.users, items=problem.test.items, timestamps=times))
        found[asked] = score(problem, np.clip(said["rating"], *problem.scale), said["like"])
    return found


def keep(path: Path, found: dict[str, Any]) -> None:
    """Write what was measured; a command that is stopped leaves the folds before whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(path)


def place(name: str, line: str, fold: int) -> Path:
    """Where a fold is kept."""
    return RESULTS / name / line.replace(" ", "-") / f"{fold}.json"


def rows(name: str, line: str, n_folds: int) -> Iterator[list[str]]:
    """Two lines of the table, or one where the family takes no time: means over the folds, and each fold."""
    paths = {fold: place(name, line, fold) for fold in range(1, n_folds + 1)}
    kept = {fold: json.loads(path.read_text(encoding="utf-8")) for fold, path in paths.items() if path.exists()}
    for asked in ASKED if "time=true" in line.split() else ("without",):
        values = [one[asked] for one in kept.values()]
        means = [f"{np.mean([one[measure] for one in values]):.4f}" for measure in ("rmse", "auc", "auc_per_user")]
        each = " ".join(f"{one['rmse']:.4f}" for one in values)
        seconds = f"{np.mean([one['processor_seconds'] for one in kept.values()]):.0f}"
        yield [line, asked, f"{len(kept)} of {n_folds}", *means, each, seconds]


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="by commas")
    parser.add_argument("--lines", default=",".join(LINES), help="families with settings, by commas")
    parser.add_argument("--folds", default="", help="numbers from 1, by commas, none by 0; all where not given")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.sets.split(","):
        found = problems(name, CACHE)
        chosen = [int(fold) for fold in given.folds.split(",")] if given.folds else range(1, len(found) + 1)
        lines = given.lines.split(",")
        for fold in chosen:
            for line in lines if fold else ():
                keep(place(name, line, fold), measure(found[fold - 1], line, given.seed))
        print(heading(f"Folds, {name}, seed {given.seed}", ["numpy", "numba"]))
        shown = [row for line in lines for row in rows(name, line, len(found)) if row[2][0] != "0"]
        columns = ["", "asked", "folds", "RMSE", "AUC", "per-user AUC", "RMSE by fold", "processor s of a fit"]
        print(table(columns, shown), flush=True)


if __name__ == "__main__":
    main()
