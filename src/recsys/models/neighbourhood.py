"""Every item regressed on those that are taken together with it most: EASE for catalogues whose inverse is too large.

Ning and Karypis (2011, "SLIM") choose the regressors so in fsSLIM; here the penalty is a ridge alone, so that each
item is one small linear system.
"""

from pathlib import Path
from typing import Any

from recsys.data.interactions import Interactions
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.list_recommender import Config, ListRecommender, suggest

__all__ = ["CAPABILITIES", "Config", "NeighbourhoodRecommender", "fit", "load", "suggest"]

CAPABILITIES = Capabilities(implicit=True, folds_in=True)


class NeighbourhoodRecommender(ListRecommender):
    """Its list model holds the solutions."""

    family = "neighbourhood"
    dense = False


def fit(knowledge: Knowledge, rows: Interactions, config: Config, options: FitOptions) -> NeighbourhoodRecommender:
    """Make what the list model, which training learns next, answers for."""
    return NeighbourhoodRecommender(knowledge, config)


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> NeighbourhoodRecommender:
    """The lists are all there is beside."""
    return NeighbourhoodRecommender.load(knowledge, description)
