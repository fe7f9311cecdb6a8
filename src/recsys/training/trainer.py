"""From a dataset and a family's settings to a recommender: learn, choose on validation, learn again from both."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from recsys.arrays import Codes, Ids
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.biases import learn_biases
from recsys.models.base.calibration import calibrate
from recsys.models.base.family import FitOptions, Report, family_module
from recsys.models.base.knowledge import Knowledge, sorted_pairs
from recsys.models.base.recommender import Recommender
from recsys.settings import Settings
from recsys.training import out_of_core


@dataclass(frozen=True, eq=False)
class FitTask:
    """One fit: what to learn from, in the codes of `knowledge`, and, in the first of two, rows to choose by."""

    knowledge: Knowledge
    rows: Interactions
    validation: Interactions | None


FitAll = Callable[[Iterable[FitTask], Report | None], list[Recommender]]
"""Fits one task after the other, each with the first's recommender as its warm start; the first is reported."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a training gives.

    `chosen` learnt from the training rows alone, so that its measures on the validation rows are honest; `final`
    is what goes into use: with `refit` it learnt from both, else it is the same.
    """

    chosen: Recommender
    final: Recommender


def train(
    family: str,
    dataset: Dataset,
    config: Settings,
    *,
    seed: int,
    refit: bool = True,
    report: Report | None = None,
    gigabytes: float | None = None,
    fit_all: FitAll | None = None,
) -> Training:
    """Train one family on a dataset; the same arguments give the same recommender on the same machine.

    Args:
        gigabytes: memory to use, in 10^9 bytes; where the rows need more, a family that can streams them. None: half of
            what is available.
        fit_all: fits elsewhere what else is fitted in this process.

    Raises:
        InputError: if the rows do not fit in memory and are needed there.
    """
    streamed = out_of_core.is_needed(family, dataset, gigabytes)
    if fit_all is not None:
        if streamed:
            raise InputError(
                f"parameter 'processes': a training from disk is one of a single process, and all "
                f"{dataset.size('train'):,} rows do not fit in the memory allowed; pass processes=1, or more memory"
            )
        fitted = fit_all(_fit_tasks(dataset, refit), report)
        return Training(fitted[0], fitted[-1])
    module = family_module(family)
    if streamed:
        return Training(*out_of_core.train(module, dataset, config, seed=seed, refit=refit, report=report))
    chosen: Recommender | None = None
    for task in _fit_tasks(dataset, refit):
        options = FitOptions(seed, task.validation, chosen, report if chosen is None else None)
        final = module.fit(task.knowledge, task.rows, config, options)
        chosen = chosen or final
    assert chosen is not None
    return Training(chosen, final)


def _fit_tasks(dataset: Dataset, refit: bool) -> Iterator[FitTask]:
    """The training rows, with those to choose by; then both together."""
    knowledge, rows, validation = _learn_knowledge(dataset, dataset.train, None)
    yield FitTask(knowledge, rows, validation)
    if refit:
        both, rows, _ = _learn_knowledge(dataset, dataset.train.joined(dataset.validation), knowledge)
        yield FitTask(both, rows, None)


def learn_knowledge(dataset: Dataset) -> tuple[Knowledge, Interactions]:
    """What is known from the training and validation rows together, and those rows in its codes.

    Raises:
        InputError: if they do not fit in memory.
    """
    out_of_core.check_memory("the baselines, which learn", dataset, "evaluate on a machine with more")
    first, _, _ = _learn_knowledge(dataset, dataset.train, None)
    both, rows, _ = _learn_knowledge(dataset, dataset.train.joined(dataset.validation), first)
    return both, rows


def _learn_knowledge(
    dataset: Dataset, rows: Interactions, first: Knowledge | None
) -> tuple[Knowledge, Interactions, Interactions]:
    """Knowledge of the users and items in `rows` only, then `rows` and the validation rows in its codes.

    Probabilities are calibrated on the validation rows, or, where `rows` hold those, as in `first`.
    """
    user_ids, user_codes = _present(dataset.user_ids, rows.users)
    item_ids, item_codes = _present(dataset.item_ids, rows.items)

    def recoded(part: Interactions) -> Interactions:
        return replace(part, users=user_codes[part.users], items=item_codes[part.items])

    rows, validation = recoded(rows), recoded(dataset.validation)
    biases = learn_biases(rows.users, rows.items, rows.ratings, len(user_ids), len(item_ids))
    if first is None:
        predicted = biases.rating(validation.users, validation.items)
        calibration = calibrate(predicted, dataset.likes(validation))
    else:
        calibration = first.calibration
    knowledge = Knowledge(
        user_ids, item_ids, sorted_pairs(rows), dataset.scale, dataset.like_threshold, biases, calibration
    )
    return knowledge, rows, validation


def _present(ids: Ids, codes: Codes) -> tuple[Ids, Codes]:
    """The ids that occur, and for every old code the new one, -1 where it does not occur."""
    present = np.bincount(codes, minlength=len(ids)) > 0
    return ids[present], np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
