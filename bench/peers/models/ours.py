"""This project's families, trained as the entry point `train` does: choose on validation rows, then learn from all."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Codes, Floats, Ids
from recsys.data.dataset import Dataset
from recsys.data.features import learn_features
from recsys.data.interactions import Interactions
from recsys.data.parquet_store import PARTS
from recsys.models.base.capabilities import capabilities
from recsys.models.base.family import FitOptions, family_module
from recsys.models.base.recommender import Recommender
from recsys.settings import Settings, parse_settings
from recsys.training.trainer import fit_tasks, train

VALIDATION_SHARE = 0.1


def import_for(settings: dict[str, Any]) -> None:
    """Import, and compile, what a fit with these settings would: that is not timed."""
    import sklearn.linear_model  # noqa: F401

    from recsys.runtime import device  # noqa: F401
    from recsys.runtime.blas import one_thread

    if settings["family"] == "matrix_factorization":
        from recsys.models.matrix_factorization import cells, compiled

        compiled.kernels(), cells.sorter()
    elif settings["family"] == "bayesian_mf":
        from recsys.models.bayesian_mf import compiled as of_chain
        from recsys.models.bayesian_mf import mcmc, numpy_backend  # noqa: F401

        of_chain.kernel(), of_chain.line_summer(), of_chain.pair_rater()
        with one_thread():
            pass  # the libraries are found once


def load(rows: Any) -> Dataset:
    """A Dataset whose validation rows are drawn from the training rows; its test rows are none."""
    users, items = (np.unique(side, return_inverse=True) for side in (rows.users, rows.items))
    known = Interactions(users[1].astype(np.int32), items[1].astype(np.int32), rows.ratings, rows.timestamps)
    order = np.random.default_rng(0).permutation(len(known))
    n = round(len(order) * VALIDATION_SHARE)
    ids = _text(users[0]), _text(items[0])
    parts = known[np.sort(order[n:])], known[np.sort(order[:n])], known[order[:0]]
    features = learn_features(*_columns(parts[0]), len(ids[0]), len(ids[1]))
    manifest = {"scale": rows.scale, "preparation": {"like_threshold": rows.like_threshold}}
    return Dataset(Path(), manifest, *ids, features, held=dict(zip(PARTS, parts, strict=True)))


def load_all(rows: Any) -> Dataset:
    """The same with all rows to learn from."""
    data = load(rows)
    return data.holding(train=data.train.joined(data.validation), validation=data.test)


def fit(data: Dataset, settings: dict[str, Any], seed: int) -> Any:
    """Both fits count: the one that chooses on the validation rows and the one on all.

    It is asked as a server asks, without the moments of the test rows, but for `time=true`.
    """
    family, config = _family(settings)
    # The others learn no lists either.
    return _predictor(train(family, data, config, seed=seed, lists=False).final, settings)


def fit_rounds(data: Dataset, settings: dict[str, Any], seed: int, rounds: int) -> Any:
    """One fit of so many epochs, or draws, with all else that a recommender knows; nothing is measured or chosen.

    Terms that the settings leave to validation rows are left out.
    """
    family, config = _family(settings)
    config = config.model_copy(update={capabilities(family).rounds: rounds})
    (task,) = fit_tasks(data, refit=False)
    return _predictor(family_module(family).fit(task.knowledge, task.rows, config, FitOptions(seed)), settings)


def _predictor(model: Recommender, settings: dict[str, Any]) -> Any:
    def predict(rows: Any) -> Any:
        times = rows.timestamps if settings.get("time") == "true" else None
        rating, like = model.predict(_text(rows.users), _text(rows.items), times)
        return {"rating": rating, "like": like}

    return predict


def watch(data: Dataset, settings: dict[str, Any], seed: int, rows: Any) -> list[tuple[float, float]]:
    """The RMSE on `rows` after every epoch or sweep of one fit on all training rows, as the family reports it.

    The family takes `rows` for validation rows, so they may decide where the curve ends.
    """
    user_ids, users = _coded(data.user_ids, _text(rows.users))
    item_ids, items = _coded(data.item_ids, _text(rows.items))
    held_out = Interactions(users, items, rows.ratings, rows.timestamps)
    whole = replace(data, user_ids=user_ids, item_ids=item_ids)
    whole = whole.holding(train=data.train.joined(data.validation), validation=held_out)
    curve: list[tuple[float, float]] = []
    start = time.perf_counter()

    def report(_: int, metrics: dict[str, float]) -> None:
        if "validation_rmse" in metrics:
            curve.append((time.perf_counter() - start, metrics["validation_rmse"]))

    family, config = _family(settings)
    train(family, whole, config, seed=seed, refit=False, report=report, lists=False)
    return curve


def _family(settings: dict[str, Any]) -> tuple[str, Settings]:
    name = settings["family"]
    rest = {key: value for key, value in settings.items() if key != "family"}
    return name, parse_settings(family_module(name).Config, rest)


def _text(ids: Any) -> Ids:
    return np.asarray(ids.astype(str), object)


def _columns(rows: Interactions) -> tuple[Codes, Codes, Floats]:
    return rows.users, rows.items, rows.ratings


def _coded(known: Ids, ids: Ids) -> tuple[Ids, Codes]:
    """The known ids and behind them the new ones, and where in that table each of `ids` is."""
    import pandas as pd  # here, since a fit does without

    table = np.concatenate([known, np.setdiff1d(ids, known)])
    return table, pd.Index(table).get_indexer(pd.Index(ids)).astype(np.int32)
