"""What a model has to be better than: biases alone, and recommending what is most popular."""

import numpy as np

from recsys.arrays import Codes
from recsys.data.dataset import Dataset
from recsys.models.base.calibration import LikeCalibration, calibrate
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.bias import BiasRecommender, Config
from recsys.settings import Settings
from recsys.training.trainer import learn_knowledge


class PopularityRecommender(Recommender):
    """Everybody likes what many have rated: the rating grows with the logarithm of an item's rating count."""

    family = "most_popular"

    def __init__(self, knowledge: Knowledge, line: tuple[float, float], likes: LikeCalibration) -> None:
        super().__init__(knowledge, Settings())
        self.line = line
        self.likes = likes
        self.popularity = np.log1p(np.bincount(knowledge.seen[:, 1], minlength=len(knowledge.item_ids)))

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        popularity = self.popularity[items]
        slope, intercept = self.line
        return Predictions(slope * popularity + intercept, self.likes.probability(popularity))


def baseline_recommenders(dataset: Dataset) -> dict[str, Recommender]:
    """The baselines by name, learnt from the dataset's training and validation rows."""
    knowledge, rows = learn_knowledge(dataset)
    popularity = np.log1p(np.bincount(rows.items, minlength=len(knowledge.item_ids)))[rows.items]
    slope, intercept = np.polyfit(popularity, rows.ratings, 1) if np.ptp(popularity) else (0.0, rows.ratings.mean())
    likes = calibrate(popularity, dataset.likes(rows))
    return {
        "bias": BiasRecommender(knowledge, Config()),
        "most_popular": PopularityRecommender(knowledge, (float(slope), float(intercept)), likes),
    }
