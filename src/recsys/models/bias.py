"""Global mean plus damped user and item biases: the baseline every other family is held against."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from recsys.arrays import Codes
from recsys.data.interactions import Interactions
from recsys.models.base.biases import DAMPING, learn_biases
from recsys.models.base.calibration import calibrate
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.factors import ScoringDraws
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.settings import Settings

_LEAST_SLOPE = 1e-9

CAPABILITIES = Capabilities()


class Config(Settings):
    """Settings of the bias family."""

    damping: float = Field(DAMPING, ge=0, description="ratings at the mean added to every user and item")


class BiasRecommender(Recommender):
    """Predicts what the knowledge of every recommender already holds."""

    family = "bias"

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        rating = self.knowledge.biases.rating(users, items)
        return Predictions(rating, self.knowledge.calibration.probability(rating))

    def scoring_draws(self) -> ScoringDraws:
        """The biases as one draw."""
        knowledge = self.knowledge
        slope = knowledge.calibration.slope or _LEAST_SLOPE  # of 0, no threshold could tell the one probability
        biases = knowledge.biases
        return ScoringDraws(
            users=np.column_stack((biases.user, np.ones(len(biases.user))))[:, None],
            items=np.column_stack((np.ones(len(biases.item)), biases.item))[:, None],
            constant=biases.mean,
            scale=1.0,
            user_variance=np.ones(len(biases.user)),
            slope=slope,
            threshold=-knowledge.calibration.intercept / slope,
            link="logit",
        )


def fit(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    options: FitOptions,
) -> BiasRecommender:
    """Solve for the biases; nothing is random and there are no epochs to report."""
    biases = learn_biases(
        rows.users, rows.items, rows.ratings, len(knowledge.user_ids), len(knowledge.item_ids), config.damping
    )
    if (validation := options.validation) is not None:
        predicted = biases.rating(validation.users, validation.items)
        calibration = calibrate(predicted, validation.ratings >= knowledge.like_threshold)
    else:
        calibration = (options.warm_start.knowledge if options.warm_start else knowledge).calibration
    return BiasRecommender(replace(knowledge, biases=biases, calibration=calibration), config)


def suggest(trial: Any) -> Config:
    """The search space."""
    return Config(damping=trial.suggest_float("damping", 0.5, 50, log=True))


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> BiasRecommender:
    """The knowledge is all there is."""
    return BiasRecommender(knowledge, Config(**description["config"]))
