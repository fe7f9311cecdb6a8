"""What tests build of the library's own parts."""

import numpy as np

from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.settings import Settings


class TableRecommender(Recommender):
    """Answers what two tables of shape (users, items) say."""

    family = "table"

    def __init__(self, knowledge: Knowledge, rating: np.ndarray, like: np.ndarray) -> None:
        super().__init__(knowledge, Settings())
        self.tables = np.array(rating, np.float64), np.array(like, np.float64)

    def _score_known(self, users, items):
        return Predictions(*(table[users, items] for table in self.tables))
