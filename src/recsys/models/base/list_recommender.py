"""A recommender that is its list model: items are ranked by a history, and nothing else is learnt.

It takes data without ratings, where its probability of a like is that of taking an item. On ratings, it expects the
rating that the biases expect, and a like by these and by what the history says for the item.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from recsys.arrays import Codes, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.lists import ListSettings
from recsys.models.base.recommendation import list_model
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.taking import Judge, LikeWeights, TakingCurve
from recsys.settings import OptionalFloat, Settings

RIDGES = (None, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
RELATIVE_RIDGES = (None, 0.0, 0.1, 0.3, 1.0, 3.0)


class Config(Settings):
    """Settings of a family of lists."""

    ridge: OptionalFloat = Field(None, gt=0, description="penalty of every weight; none: chosen on validation")
    relative_ridge: OptionalFloat = Field(
        None, ge=0, description="penalty in proportion to an item's own count; none: chosen on validation"
    )
    half_life: OptionalFloat = Field(
        None, gt=0, description="newer ratings after which one of a history counts half; none: chosen on validation"
    )


def suggest(trial: Any) -> Config:
    """The search space."""
    return Config(
        ridge=trial.suggest_categorical("ridge", RIDGES),
        relative_ridge=trial.suggest_categorical("relative_ridge", RELATIVE_RIDGES),
    )


class ListRecommender(Recommender):
    """Answers by `lists`; `curve`, without ratings, and `weights`, with ratings, say how probable a like is."""

    dense: ClassVar[bool]
    """Whether every item is regressed on all others, or on those taken together with it most."""

    def __init__(self, knowledge: Knowledge, config: Config) -> None:
        super().__init__(knowledge, config)
        self.curve: TakingCurve | None = None
        self.weights = LikeWeights()

    @property
    def judge(self) -> Judge:
        """What turns the scores of lists into probabilities."""
        return self.weights if self.curve is None else self.curve

    def takes(self, users: Codes, items: Codes) -> Floats:
        """What the user's history says for the item, shape (n,); 0 where it says nothing of any item."""
        model, knowledge = list_model(self), self.knowledge
        found = np.zeros(len(users))
        order = np.argsort(users, kind="stable")
        ends = np.flatnonzero(np.diff(users[order], append=-2)) + 1
        for rows in np.split(order, ends[:-1]) if len(users) else ():
            taken, ratings = model.rated.of(int(users[rows[0]]))
            newer = model.rated.newer_of(int(users[rows[0]]))
            values = model.regression.in_history(ratings, newer, knowledge.scale, knowledge.like_threshold)
            if values.any():
                found[rows] = model.takes(taken, values)[items[rows]]
        return found

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        takes = self.takes(users, items)
        if self.curve is not None:
            taking = self.curve.probability(takes)
            return Predictions(taking, taking.copy())
        rating = self.knowledge.biases.rating(users, items)
        by_bias, weights = self.knowledge.calibration, self.weights
        return Predictions(rating, weights.probability(by_bias.slope * rating + by_bias.intercept, takes))

    def _score_unknown(self, users: Codes, items: Codes) -> Predictions:
        """Without ratings: what is popular."""
        if self.curve is None:
            return super()._score_unknown(users, items)
        popularity = np.where(items >= 0, list_model(self).popularity[items], 0.0)
        taking = self.curve.of_popularity(popularity, len(self.knowledge.user_ids))
        return Predictions(taking, taking.copy())

    def list_settings(self) -> ListSettings:
        """As configured; the first factor alone ranks."""
        assert isinstance(self.config, Config)
        config = self.config
        return ListSettings(
            ridge=config.ridge,
            relative_ridge=config.relative_ridge,
            half_life=config.half_life,
            exponent=0.0,
            dense=self.dense,
        )

    def choices(self) -> dict[str, object]:
        """What validation chose of the regression."""
        return {} if self.lists is None else asdict(self.lists.regression)

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "ListRecommender":
        assert isinstance(self.config, Config)
        return type(self)(knowledge, self.config).answering_as(self)

    def answering_as(self, other: "ListRecommender") -> Self:
        """This recommender, with the other's probabilities of a like for equal scores."""
        self.curve, self.weights = other.curve, other.weights
        return self

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        return {"curve": None if self.curve is None else asdict(self.curve), "likes": asdict(self.weights)}

    @classmethod
    def load(cls, knowledge: Knowledge, description: dict[str, Any]) -> Self:
        """Read back what was saved, less the lists."""
        loaded = cls(knowledge, Config(**description["config"]))
        saved = description["weights"]
        loaded.curve = None if saved["curve"] is None else TakingCurve(**saved["curve"])
        loaded.weights = LikeWeights(**saved["likes"])
        return loaded

    def with_share(self, share: float) -> Self:
        """This recommender, with another share for unknown users."""
        if self.curve is not None:
            self.curve = replace(self.curve, share=share)
        return self
