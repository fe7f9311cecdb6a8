"""EASE (Steck 2019) with the diagonal of EDLAE (Steck 2020): every item regressed on all others, in closed form.

Memory and time grow with the square and the cube of the catalogue; for larger ones there is `neighbourhood`.
"""

from pathlib import Path
from typing import Any

from recsys.data.interactions import Interactions
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.list_recommender import Config, ListRecommender, suggest
from recsys.runtime import memory

__all__ = ["CAPABILITIES", "Config", "EaseRecommender", "fit", "load", "suggest"]

CAPABILITIES = Capabilities(implicit=True, folds_in=True)

_BYTES_A_CELL = 24  # of a table of items by items: G, the inverse, and what is kept


class EaseRecommender(ListRecommender):
    """Its list model holds the solution."""

    family = "ease"
    dense = True


def fit(knowledge: Knowledge, rows: Interactions, config: Config, options: FitOptions) -> EaseRecommender:
    """Make what the list model, which training learns next, answers for; raises InputError if memory is too small."""
    items = len(knowledge.item_ids)
    memory.check(
        items**2 * _BYTES_A_CELL,
        f"family ease, which inverts a table of {items:,} by {items:,} items,",
        "pass family=neighbourhood, whose memory grows with the items and not with their square",
    )
    return EaseRecommender(knowledge, config)


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> EaseRecommender:
    """The lists are all there is beside."""
    return EaseRecommender.load(knowledge, description)
