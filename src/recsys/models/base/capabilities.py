"""Which families there are, and what each can do beyond the least that is asked of it."""

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from recsys import models
from recsys.distributed.context import Sharding
from recsys.errors import InputError


@dataclass(frozen=True)
class Capabilities:
    """What a family can do. The defaults are those of one that only fits rows in memory, in one process."""

    shardings: tuple[Sharding, ...] = ()
    """How tables can be shared among processes; none where it trains in one only. With a `context`, `fit` is called
    in every process alike, and what it returns counts in rank 0; in the others it serves as `warm_start` only."""
    streams: bool = False
    """Whether `fit` takes a `RowStream` too, for rows that do not fit in memory."""
    implicit: bool = False
    """Whether it learns from who took what, without ratings. It then answers by its list model, which is always learnt
    (`recsys.models.base.list_recommender`)."""
    folds_in: bool = False
    """Whether its recommenders know further users from their ratings without training (`Recommender._fold_in`)."""
    cross_validation_folds: int = 0
    """By how many folds of the training rows `tune` measures it; 0: by the validation rows."""
    stored_features: bool = False
    """Whether `fit` takes features from a feature store (`FitOptions.stored`) in place of those of the rows."""
    spared_reports: int = 2
    """How many first reports of a fit do not tell yet how well it will end: `tune` gives up no trial by them."""
    rounds: str = ""
    """The setting that bounds the rounds of a fit: those reported, or the draws where `draws_kept` is reported."""


def family_names() -> list[str]:
    """The families there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.name != "base")


@functools.cache  # a fit asks several times, and to look into the folder takes a fifth of a millisecond
def import_family(name: str) -> Any:
    """The module of a family; raises InputError that lists the known ones."""
    if name not in family_names():
        raise InputError(f"parameter 'family': one of {', '.join(family_names())}, got {name!r}")
    return importlib.import_module(f"{models.__name__}.{name}")


def capabilities(name: str) -> Capabilities:
    """What a family can do; raises InputError where there is no such family."""
    found: Capabilities = import_family(name).CAPABILITIES
    return found
