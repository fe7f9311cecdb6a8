"""The contract of a model family.

A family is a file or a folder in recsys/models, and that folder is the list of them: nothing is edited elsewhere to
add one. docs/adding-a-family.md walks through one.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from recsys.arrays import Floats, Ids
from recsys.data.features import Features
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import Capabilities, capabilities, family_names, import_family
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Recommender
from recsys.settings import Settings

if TYPE_CHECKING:  # what only training needs
    from recsys.data.dataset import Dataset
    from recsys.data.loader import RowStream
    from recsys.distributed.context import Context

Made = TypeVar("Made")
Report = Callable[[int, dict[str, float]], None]
"""Told after every epoch (or whatever a family's unit of progress is): its number and its metrics. May raise to end
the fit."""


class StoredFeatures(Protocol):
    """Features that a feature store keeps (recsys.feature_store)."""

    origin: Any
    """What they were made of: `dataset`, its digest, and `prepared`, when."""

    def table(self, user_ids: Ids, item_ids: Ids, moments: Floats) -> Floats:
        """What was known of each pair just before its moment: shape (n, 8), columns as in recsys.data.features."""

    def latest(self, user_ids: Ids, item_ids: Ids) -> Features:
        """What is known in the end, in the codes of these ids."""


class Memo:
    """What the fits of one task make of its rows alone, whatever their settings: made once, and changed by none."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives; the key says what else than the rows it depends on."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


@dataclass(frozen=True, eq=False)
class FitOptions:
    """How to fit. A training fits twice: the first fit has `validation`, the second, of all rows, `warm_start`.

    A third, to the older rows, is like the first, and is measured on the newest rows. A training that goes on from an
    earlier version fits once, with that version's recommender as `warm_start`.
    """

    seed: int
    """Of all that is random."""
    validation: Interactions | None = None
    """Rows to choose by and to calibrate on, in the codes of the knowledge; -1 for users and items not learnt from."""
    warm_start: Recommender | None = None
    """What the first fit, or an earlier training, gave: its choices are kept, and nothing is chosen again."""
    report: Report | None = None
    context: "Context | None" = None
    """Given in each of the processes that train together, to a family that can."""
    stored: "StoredFeatures | None" = None
    """Where a feature store says what is known of users and items."""
    memo: Memo | None = None
    """Given where further fits to the same rows, with other settings, are to follow."""


class Family(Protocol):
    """What a family's module has, by these names."""

    CAPABILITIES: Capabilities
    Config: type[Settings]
    """Its settings; each field is a parameter of `train`."""

    def fit(
        self, knowledge: Knowledge, rows: "Interactions | RowStream", config: Any, options: FitOptions
    ) -> Recommender:
        """Learn from `rows`, in the codes of `knowledge`."""

    def suggest(self, trial: Any) -> Settings:
        """A configuration of the search space, for an Optuna trial. The default settings lie in that space."""

    def load(self, folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> Recommender:
        """Read back what the family's recommender saved."""


def family_module(name: str) -> Family:
    """A family by its name; raises InputError that lists the known ones."""
    return cast(Family, import_family(name))


def check_feedback(family: str, dataset: "Dataset") -> None:
    """Refuse to learn ratings from a dataset without; raises InputError that names the families for it."""
    if dataset.implicit and not capabilities(family).implicit:
        able = [name for name in family_names() if capabilities(name).implicit]
        raise InputError(
            f"family {family!r}: it learns from ratings, and dataset {dataset.digest[:12]} says only who took what; "
            f"{', '.join(able)} learn from that: pass -P family={able[0]}, or name the ratings by -P rating_column"
        )
