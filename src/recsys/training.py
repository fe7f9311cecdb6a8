"""From a dataset and a family's settings to a recommender: learn, choose on validation, learn again from both."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from recsys import families, streaming
from recsys.arrays import Codes, Ids
from recsys.biases import calibrate, learn_biases
from recsys.dataset import Dataset, Interactions
from recsys.recommender import Knowledge, Recommender, sorted_pairs
from recsys.settings import Settings

Report = Callable[[int, dict[str, float]], None]
"""Told after every epoch (or whatever a family's unit of progress is): its number and its metrics."""


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
) -> Training:
    """Train one family on a dataset; the same arguments give the same recommender on the same machine.

    Args:
        gigabytes: memory to use, in 10^9 bytes; where the rows need more, a family that can streams them. None: half of
            what is available.

    Raises:
        InputError: if the rows do not fit in memory and the family needs them there.
    """
    module = families.family_module(family)
    if streaming.is_needed(family, dataset, gigabytes):
        return Training(*streaming.train(module, dataset, config, seed=seed, refit=refit, report=report))
    knowledge, rows, validation = _learn_knowledge(dataset, dataset.train, None)
    chosen = module.fit(knowledge, rows, config, seed=seed, validation=validation, report=report)
    if not refit:
        return Training(chosen, chosen)
    both, rows, _ = _learn_knowledge(dataset, dataset.train.joined(dataset.validation), knowledge)
    return Training(chosen, module.fit(both, rows, config, seed=seed, guide=chosen))


def learn_knowledge(dataset: Dataset) -> tuple[Knowledge, Interactions]:
    """What is known from the training and validation rows together, and those rows in its codes.

    Raises:
        InputError: if they do not fit in memory.
    """
    streaming.check_memory("the baselines, which learn", dataset, "evaluate on a machine with more")
    first, _, _ = _learn_knowledge(dataset, dataset.train, None)
    both, rows, _ = _learn_knowledge(dataset, dataset.train.joined(dataset.validation), first)
    return both, rows


def _learn_knowledge(
    dataset: Dataset, rows: Interactions, guide: Knowledge | None
) -> tuple[Knowledge, Interactions, Interactions]:
    """Knowledge of the users and items in `rows` only, then `rows` and the validation rows in its codes.

    Probabilities are calibrated on the validation rows, or, where `rows` hold those, as in `guide`.
    """
    user_ids, user_codes = _present(dataset.user_ids, rows.users)
    item_ids, item_codes = _present(dataset.item_ids, rows.items)

    def recoded(part: Interactions) -> Interactions:
        return replace(part, users=user_codes[part.users], items=item_codes[part.items])

    rows, validation = recoded(rows), recoded(dataset.validation)
    biases = learn_biases(rows.users, rows.items, rows.ratings, len(user_ids), len(item_ids))
    if guide is None:
        predicted = biases.rating(validation.users, validation.items)
        calibration = calibrate(predicted, dataset.likes(validation))
    else:
        calibration = guide.calibration
    knowledge = Knowledge(
        user_ids, item_ids, sorted_pairs(rows), dataset.scale, dataset.like_threshold, biases, calibration
    )
    return knowledge, rows, validation


def _present(ids: Ids, codes: Codes) -> tuple[Ids, Codes]:
    """The ids that occur, and for every old code the new one, -1 where it does not occur."""
    present = np.bincount(codes, minlength=len(ids)) > 0
    return ids[present], np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
