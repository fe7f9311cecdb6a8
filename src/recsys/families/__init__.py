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
                                "row"; `fit` then takes `team`, a recsys.distributed.team.Team, in each of them
    CROSS_VALIDATION_FOLDS      only where `tune` is to measure it by cross-validation of the training rows
    fold_in(recommender, knowledge, rows) -> Recommender
                                optional: knows the users of `rows` too, in the codes of `knowledge`, without training

docs/adding-a-family.md walks through one.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from recsys.errors import InputError
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.recommender import Knowledge, Recommender


class Family(Protocol):
    """What a module in this folder offers."""

    Config: type[Settings]
    fit: "Callable[..., Recommender]"
    suggest: Callable[[Any], Settings]
    load: "Callable[[Path, Knowledge, dict[str, Any]], Recommender]"


def family_names() -> list[str]:
    """The families there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def family_module(name: str) -> Family:
    """Import a family; raises InputError that lists the known ones."""
    if name not in family_names():
        raise InputError(f"parameter 'family': one of {', '.join(family_names())}, got {name!r}")
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def cross_validation_folds(name: str) -> int:
    """How many folds a family's settings are measured by; 0 where it is by the validation rows."""
    return int(getattr(family_module(name), "CROSS_VALIDATION_FOLDS", 0))


def load_recommender(folder: Path) -> "Recommender":
    """Load what `Recommender.save` wrote; raises InputError if it is not there or of another format."""
    from recsys.recommender import FORMAT, load_knowledge

    path = folder / "recommender.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: a saved recommender is expected here, but {error}") from None
    if found != FORMAT:
        raise InputError(f"{path}: format {FORMAT} can be read, got {found}; use the recsys that saved it")
    module = family_module(description["family"])
    return module.load(folder, load_knowledge(folder, description), description)
