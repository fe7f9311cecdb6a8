"""What a server will answer, beside what the test rows of a hash split say: as served, with timestamps, on the future.

python -m bench.forward [sets …]                   the table of docs/benchmarks.md
python -m bench.forward --choices [sets …]         validation by random rows against validation by the newest rows
"""

import argparse
from collections.abc import Iterator

import numpy as np

from bench.measure import heading, table
from recsys.data import builder
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, join
from recsys.data.movielens import obtain
from recsys.data.preparation import Preparation
from recsys.evaluation.evaluator import evaluate
from recsys.evaluation.forward import evaluate_forward
from recsys.models.base.family import family_module
from recsys.models.base.recommender import Recommender
from recsys.settings import parse_settings
from recsys.training.trainer import train
from steps.support.entrypoint import data_folder

SHARE, VALIDATION = 0.2, 0.125  # the newest of all ratings; of the others, those to choose by
_MEASURES = ("auc", "rmse", "auc_per_user", "calibration_error", "interval_coverage")
_COLUMNS = ("rows", "AUC", "RMSE", "per-user AUC", "calibration error", "interval coverage")


def prepare(name: str) -> Dataset:
    """The set, split by hash."""
    source = obtain(name, data_folder() / "downloads")
    return builder.prepare(source, Preparation(ratings=name), data_folder() / "prepared")


def newest(rows: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """The older rows, and the newest ones."""
    assert rows.timestamps is not None
    order = np.argsort(rows.timestamps, kind="stable")
    cut = len(order) - int(len(order) * share)
    return rows[np.sort(order[:cut])], rows[np.sort(order[cut:])]


def at_random(rows: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """The others, and rows drawn at random."""
    order = np.random.default_rng(0).permutation(len(rows))
    n = int(len(order) * share)
    return rows[np.sort(order[n:])], rows[np.sort(order[:n])]


def future_of(dataset: Dataset, choose: str = "random") -> Dataset:
    """The newest fifth of all ratings is the test; validation is drawn from the others, or is the newest of them."""
    older, test = newest(join([dataset.train, dataset.validation, dataset.test]), SHARE)
    learnt, validation = (newest if choose == "newest" else at_random)(older, VALIDATION)
    return dataset.holding(train=learnt, validation=validation, test=test)


def fit(dataset: Dataset, line: str, seed: int) -> Recommender:
    """A family, perhaps with settings, as in `bayesian_mf time=false`."""
    family, *pairs = line.split()
    config = parse_settings(family_module(family).Config, dict(pair.split("=", 1) for pair in pairs))
    return train(family, dataset, config, seed=seed, lists=False).final


def cells(values: dict[str, float], prefix: str = "") -> list[str]:
    """The measures that a table shows."""
    found = [values.get(f"{prefix}{name}") for name in _MEASURES]
    shown = ["" if value is None else f"{value:.4f}" for value in found]
    return [f"{int(values[f'{prefix}rows']):,}", *shown]


def served(dataset: Dataset, seed: int) -> Iterator[list[str]]:
    """The lines of a set."""
    for line in ("bayesian_mf", "bayesian_mf time=true", "matrix_factorization", "bias"):
        measured = evaluate(fit(dataset, line, seed), dataset, ranking=False, baselines=False).metrics
        yield [f"{line}, hash test rows as served", *cells(measured)]
        if "timed_auc" in measured:
            timed = {name.removeprefix("timed_"): measured[name] for name in measured if name.startswith("timed_")}
            yield [f"{line}, the same asked with their timestamps", *cells(timed | {"rows": measured["rows"]})]
    future = future_of(dataset)
    for line in ("bayesian_mf", "bayesian_mf time=true", "matrix_factorization", "bias"):
        ahead = evaluate_forward(fit(future, line, seed), future).metrics
        for group, said in (("", "all"), ("warm_", "of known users and items"), ("cold_", "the others")):
            yield [f"{line}, newest fifth, {said}", *cells(ahead, f"forward_{group}")]


def choices(dataset: Dataset, seeds: int) -> Iterator[list[str]]:
    """Both ways to choose, on hash test rows and on the newest rows: means over seeds."""
    both = dataset.train.joined(dataset.validation)
    by_newest = dict(zip(("train", "validation"), newest(both, VALIDATION), strict=True))
    for family in ("bayesian_mf", "matrix_factorization"):
        for how, split in (("random", dataset), ("newest", dataset.holding(**by_newest))):
            found = [
                evaluate(fit(split, family, seed), split, ranking=False, baselines=False).metrics
                for seed in range(seeds)
            ]
            yield [family, how, "hash test rows", *cells(mean(found))]
            future = future_of(dataset, how)
            ahead = mean([evaluate_forward(fit(future, family, seed), future).metrics for seed in range(seeds)])
            yield [family, how, "newest fifth, all", *cells(ahead, "forward_")]
            yield [family, how, "newest fifth, known", *cells(ahead, "forward_warm_")]


def mean(found: list[dict[str, float]]) -> dict[str, float]:
    """Of each measure that all have."""
    return {name: float(np.mean([values[name] for values in found])) for name in found[0]}


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=["movielens-100k", "movielens-1m"])
    parser.add_argument("--choices", action="store_true", help="compare validation rows drawn at random and the newest")
    parser.add_argument("--seeds", type=int, default=1, help="of --choices")
    given = parser.parse_args()
    for name in given.sets:
        dataset = prepare(name)
        if given.choices:
            print(heading(f"What validation chooses by, {name}, means of {given.seeds} seeds", ["torch", "numpy"]))
            print(table(["family", "chosen on", "measured on", *_COLUMNS], list(choices(dataset, given.seeds))))
        else:
            print(heading(f"As served and on the future, {name}", ["torch", "numpy"]))
            print(table(["", *_COLUMNS], list(served(dataset, 42))), flush=True)


if __name__ == "__main__":
    main()
