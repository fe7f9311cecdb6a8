"""The model families: one file each, and this folder is the list of them.

A family is a module with

    Config                      its settings, a frozen `Settings`
    fit(knowledge, rows, config, *, seed, validation=None, guide=None, report=None) -> Recommender
                                learns from `rows`, in the codes of `knowledge`. Either `validation` is given, rows to
                                choose by and calibrate on (their codes may be -1), or `guide`, a recommender that
                                was fitted with them, whose choices are kept. `report(epoch, metrics)` hears of progress
    suggest(trial) -> Config    its search space, for `tune`
    load(folder, knowledge, description) -> Recommender
                                reads back what its recommender saved
    DISTRIBUTED                 only where it trains in several processes: the shardings it knows, "none" and perhaps
                                "row". `fit` then takes `team`, a recsys.distributed.team.Team, in each of them, and
                                returns the whole recommender in rank 0 and in every rank one that can be a guide
    CROSS_VALIDATION_FOLDS      only where `tune` is to measure it by cross-validation of the training rows
    SPARED_STEPS                optional: how many first reports of a fit do not tell yet how well it will end, so that
                                `tune` gives up no trial by them; 2 where it is not said
    fold_in(recommender, knowledge, rows) -> Recommender
                                optional: knows the users of `rows` too, in the codes of `knowledge`, without training

docs/adding-a-family.md walks through one.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from recsys import models
from recsys.errors import InputError
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.models.base.knowledge import Knowledge
    from recsys.models.base.recommender import Recommender


class Family(Protocol):
    """What a module in this folder offers."""

    Config: type[Settings]
    fit: "Callable[..., Recommender]"
    suggest: Callable[[Any], Settings]
    load: "Callable[[Path, Knowledge, dict[str, Any]], Recommender]"


def family_names() -> list[str]:
    """The families there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.name != "base")


def family_module(name: str) -> Family:
    """Import a family; raises InputError that lists the known ones."""
    if name not in family_names():
        raise InputError(f"parameter 'family': one of {', '.join(family_names())}, got {name!r}")
    return cast(Family, importlib.import_module(f"{models.__name__}.{name}"))


def cross_validation_folds(name: str) -> int:
    """How many folds a family's settings are measured by; 0 where it is by the validation rows."""
    return int(getattr(family_module(name), "CROSS_VALIDATION_FOLDS", 0))


def spared_steps(name: str) -> int:
    """How many first reports of a fit say nothing yet of how well it will end."""
    return int(getattr(family_module(name), "SPARED_STEPS", 2))


def shardings(name: str) -> tuple[str, ...]:
    """How a family can share its tables among processes; nothing where it trains in one only."""
    return tuple(getattr(family_module(name), "DISTRIBUTED", ()))
