"""What a training saves that goes on from a champion, once there are more ratings, and what it costs in accuracy.

python -m bench.retraining [--share=0.05] [--newest] [movielens-100k bayesian_mf …]
"""

import argparse
import time

import numpy as np

from bench.forward import prepare
from bench.measure import heading, table
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.family import family_module
from recsys.training import trainer
from recsys.training.warm_start import divide_anew


def before(dataset: Dataset, share: float, newest: bool, seed: int = 0) -> Dataset:
    """The dataset without a share of its rows to learn from: the newest ones, or ones drawn at random."""
    random = np.random.default_rng(seed)

    def fewer(rows: Interactions) -> Interactions:
        order = np.argsort(rows.timestamps, kind="stable") if newest else random.permutation(len(rows))
        return rows[np.sort(order[: len(order) - round(len(order) * share)])]

    return dataset.holding(train=fewer(dataset.train), validation=fewer(dataset.validation))


def measure(name: str, family: str, share: float, newest: bool) -> list[list[str]]:
    """A row for a training from scratch as `train` does it, one without the forward fit, and one that goes on."""
    dataset, config = prepare(name), family_module(family).Config()
    champion = trainer.train(family, before(dataset, share, newest), config, seed=1).final
    rows = []
    first = None
    for how in ("from scratch", "from scratch, forward=false", "going on from the champion"):
        started = time.process_time()
        if how.startswith("going"):
            held = divide_anew(dataset, champion, family)
            trained = trainer.train(family, held, champion.config, seed=2, warm_start=champion)
        else:
            trained = trainer.train(family, dataset, config, seed=2, forward="forward" not in how)
        seconds = time.process_time() - started
        first = first or seconds
        found = evaluate(trained.final, dataset, baselines=False).metrics
        measured = (f"{found[key]:.4f}" for key in ("auc", "rmse", "ndcg_at_10"))
        rows.append([name, family, how, f"{seconds:.1f}", f"{seconds / first:.2f}", *measured])
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("given", nargs="*", default=["movielens-100k", "bayesian_mf"])
    given = parser.parse_args()
    pairs = zip(given.given[::2], given.given[1::2], strict=True)
    found = [row for name, family in pairs for row in measure(name, family, given.share, given.newest)]
    print(heading(f"{given.share:.0%} of the rows are new{', the newest' * given.newest}", ["torch", "numba"]))
    columns = ["data", "family", "training", "processor s", "of scratch", "AUC", "RMSE", "nDCG@10"]
    print(table(columns, found))
