"""What a training saves that goes on from a champion, once there are more ratings, and what it costs in accuracy.

python -m bench.retraining [--share=0.05] [--newest] [movielens-100k bayesian_mf …]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from bench.forward import prepare
from bench.measure import heading, table
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.family import family_module
from recsys.models.base.recommender import Recommender
from recsys.settings import Settings
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
    """A row for each way of training, all processor times beside that of `train` as it is."""
    dataset, config = prepare(name), family_module(family).Config()
    champion = trainer.train(family, before(dataset, share, newest), config, seed=1).final
    ways: dict[str, Callable[[], Recommender]] = {
        "from scratch": lambda: trainer.train(family, dataset, config, seed=2, forward=True).final,
        "from scratch, forward=false": lambda: trainer.train(family, dataset, config, seed=2).final,
        "from scratch, forward=false, the champion's choices": lambda: (
            trainer.train(family, dataset, as_chosen(champion), seed=2).final
        ),
        "going on from the champion": lambda: (
            trainer.train(
                family, divide_anew(dataset, champion, family), champion.config, seed=2, warm_start=champion
            ).final
        ),
    }
    rows, first = [], None
    for how, train in ways.items():
        started = time.process_time()
        trained = train()
        seconds = time.process_time() - started
        first = first or seconds
        found = evaluate(trained, dataset, baselines=False).metrics
        measured = (f"{found[key]:.4f}" for key in ("auc", "rmse", "ndcg_at_10"))
        rows.append([name, family, how, f"{seconds:.1f}", f"{seconds / first:.2f}", *measured])
        print(rows[-1], trained.choices(), flush=True)
    return rows


def as_chosen(champion: Recommender) -> Settings:
    """The champion's settings, with what it chose on validation in place of what they leave open."""
    choices = champion.choices()
    left_open = [name for name, value in champion.config.model_dump().items() if value == "auto" and name in choices]
    return champion.config.model_copy(update={name: str(choices[name]).lower() for name in left_open})


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
