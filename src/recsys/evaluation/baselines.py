"""What a model has to be better than: biases alone, and recommending what is most popular."""

import numpy as np

from recsys.arrays import Codes, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.models.base.calibration import LikeCalibration, calibrate
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.bias import BiasRecommender, Config
from recsys.settings import Settings
from recsys.training.trainer import learn_knowledge


class PopularityRecommender(Recommender):
    """Everybody likes what is popular: the rating grows with the logarithm of an item's count.

    Who asks does not matter, so that an unknown user gets what all get; an unknown item has been counted 0 times.

    Args:
        popularity: (items,) logarithms of 1 + count.
        line: slope and intercept of the rating over the popularity.
    """

    def __init__(
        self, family: str, knowledge: Knowledge, popularity: Floats, line: tuple[float, float], likes: LikeCalibration
    ) -> None:
        super().__init__(knowledge, Settings())
        self.family = family
        self.popularity = popularity
        self.line = line
        self.likes = likes

    def score(self, users: Codes, items: Codes, timestamps: Floats | None = None) -> Predictions:
        """Predict from the items alone."""
        popularity = np.where(items >= 0, self.popularity[items], 0.0)
        slope, intercept = self.line
        rating = np.clip(slope * popularity + intercept, *self.knowledge.scale)
        return Predictions(rating, self.likes.probability(popularity))

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        return self.score(users, items)


def baseline_recommenders(dataset: Dataset) -> dict[str, Recommender]:
    """The baselines by name, learnt from the dataset's training and validation rows; without ratings, popularity."""
    knowledge, rows = learn_knowledge(dataset)
    if dataset.implicit:
        return {"most_popular": _taken_often(knowledge, rows, dataset)}
    return {
        "bias": BiasRecommender(knowledge, Config()),
        "most_popular": _popularity("most_popular", knowledge, rows, rows.items, dataset),
        "most_liked": _popularity("most_liked", knowledge, rows, rows.items[dataset.likes(rows)], dataset),
    }


def _popularity(
    family: str, knowledge: Knowledge, rows: Interactions, counted: Codes, dataset: Dataset
) -> PopularityRecommender:
    """By how often each item is among `counted`; the ratings and likes of `rows` say what that is worth."""
    popularity = np.log1p(np.bincount(counted, minlength=len(knowledge.item_ids)))
    of_row = popularity[rows.items]
    slope, intercept = np.polyfit(of_row, rows.ratings, 1) if np.ptp(of_row) else (0.0, rows.ratings.mean())
    line = float(slope), float(intercept)
    return PopularityRecommender(family, knowledge, popularity, line, calibrate(of_row, dataset.likes(rows)))


def _taken_often(knowledge: Knowledge, rows: Interactions, dataset: Dataset) -> PopularityRecommender:
    """Everybody takes an item as probably as users took it: 1 + count, over all, for as much as the test part holds."""
    popularity = np.log1p(np.bincount(rows.items, minlength=len(knowledge.item_ids)))
    share = dataset.preparation.test_size / (1 - dataset.preparation.test_size)
    taking = LikeCalibration(1.0, float(np.log(share / len(knowledge.user_ids))))
    return PopularityRecommender("most_popular", knowledge, popularity, (0.0, 0.0), taking)
