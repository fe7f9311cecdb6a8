"""The contract of a trained model: ids in, expected ratings and probabilities of a like out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsys.arrays import Codes, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base import recommendation
from recsys.models.base.capabilities import capabilities, family_names
from recsys.models.base.factors import RatingFactors, ScoringDraws
from recsys.models.base.fold_in import check_ratings, fold_into_knowledge, newest_of_known_items
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.lists import History, ListModel, ListSettings, Recommendations
from recsys.models.base.storage import DESCRIPTION, FORMAT, save_knowledge
from recsys.settings import Settings


class Predictions(NamedTuple):
    """Two arrays of shape (n,): the expected rating, within the scale, and the probability of a like."""

    rating: Floats
    like_probability: Floats


class Recommender(ABC):
    """A trained model of one family. Unknown users and items never fail: they get the bias fallback."""

    family: str
    lists: ListModel | None = None
    """What lists are made from; None in versions that were trained without."""

    def __init__(self, knowledge: Knowledge, config: Settings) -> None:
        self.knowledge = knowledge
        self.config = config

    @abstractmethod
    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        """Predictions for known users and items, not clipped; every code is at least 0."""

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        """As `_score_known`, for moments (n,), NaN where unknown; a family that knows no time ignores them."""
        return self._score_known(users, items)

    @property
    def uses_time(self) -> bool:
        """Whether predictions for given moments can differ from those without."""
        return type(self)._score_known_at is not Recommender._score_known_at

    def predictive_std(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Floats | None:
        """Standard deviation of the rating that each pair of raw ids would give, shape (n,), where the family has it.

        Served predictions are for no given moment, and so is this without `timestamps`.
        """
        return None

    def importances(self) -> dict[str, float]:
        """How much each input feature counts, where the family has input features."""
        return {}

    def choices(self) -> dict[str, object]:
        """What the fit settled itself, where there was anything left open by the settings."""
        return {}

    def list_settings(self) -> ListSettings:
        """What of the list model is settled by the family; all else is chosen on validation."""
        return ListSettings()

    def rating_factors(self) -> RatingFactors | None:
        """The expected ratings as a product of two tables, where the family has them so."""
        return None

    def scoring_draws(self) -> ScoringDraws | None:
        """All that answers for known users and items are computed from, where the family has it as tables."""
        return None

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        """Write what the family adds to the knowledge; what is returned goes to the family's `load` as JSON."""
        return {}

    def score(self, users: Codes, items: Codes, timestamps: Floats | None = None) -> Predictions:
        """Predict for pairs of codes, each of shape (n,); -1 stands for an unknown id, NaN for an unknown moment."""
        knowledge = self.knowledge
        known = (users >= 0) & (items >= 0)
        pairs = (users, items) if known.all() else (users[known], items[known])
        if timestamps is None:
            found = self._score_known(*pairs)
        else:
            found = self._score_known_at(*pairs, timestamps if known.all() else timestamps[known])
        if known.all():
            rating, like = found
        else:
            rating = knowledge.biases.rating(users, items)
            like = knowledge.calibration.probability(rating)
            rating[known], like[known] = found
        return Predictions(np.clip(rating, *knowledge.scale), like)

    def predict(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Predictions:
        """Predict for pairs of raw ids (text), each of shape (n,), at moments in the unit of those learnt from."""
        return self.score(self.knowledge.user_codes(user_ids), self.knowledge.item_codes(item_ids), timestamps)

    def fold_in(self, user_ids: Ids, item_ids: Ids, ratings: Floats) -> "Folded":
        """A recommender that predicts for the users of these ratings, each of shape (n,), as for those learnt from.

        A user's ratings replace what was known of a user of that id; the last of several ratings of an item counts.
        Whoever has rated unknown items only stays as before.

        Raises:
            InputError: if the family cannot do it, or a rating is outside the scale.
        """
        if type(self)._fold_in is Recommender._fold_in:
            able = [name for name in family_names() if capabilities(name).folds_in]
            raise InputError(
                f"family {self.family!r}: it cannot fold in ratings, {', '.join(able)} can; train one of these, or "
                "train again with the ratings"
            )
        ratings = np.asarray(ratings, np.float64)
        check_ratings(user_ids, item_ids, ratings, self.knowledge.scale)
        kept, ignored = newest_of_known_items(self.knowledge, user_ids, item_ids)
        if len(kept) == 0:
            return Folded(self, ignored)
        folded = fold_into_knowledge(self.knowledge, user_ids[kept], item_ids[kept], ratings[kept])
        grown = self._fold_in(*folded)
        if self.lists is not None:
            grown.lists = self.lists.with_users(folded[1], len(folded[0].user_ids))
        return Folded(grown, ignored)

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "Recommender":
        """This recommender with knowledge of further users, whose ratings are `rows`, in the codes of `knowledge`."""
        raise TypeError(f"{self.family} does not fold in")

    def recommend(
        self,
        user_ids: Ids,
        n: int = 10,
        *,
        history: Sequence[History | None] | None = None,
        exclude_seen: bool = True,
        candidates: Ids | None = None,
        exclude: Ids | None = None,
        diversity: float = 0.0,
    ) -> Recommendations:
        """For each user the n items of highest P(takes) * P(likes | takes) ^ exponent, fewer only where fewer exist.

        The first factor comes from a history: the one given, or else the user's ratings learnt from. An unknown user
        is answered by the given history, or by what is popular. Equal scores are ordered by the items' ids.

        Args:
            user_ids: raw ids (text), shape (u,).
            n: at least 1.
            history: one a user; None for those answered by what was learnt.
            exclude_seen: leave out what the user rated, in the history given or in the rows learnt from.
            candidates: list only these; unknown ids are ignored and counted.
            exclude: never list these; unknown ids are ignored and counted.
            diversity: from 0, by score alone, to 1, by how different the items of a list are (maximal marginal
                relevance).

        Raises:
            InputError: if n, diversity or a history is not as described, no candidate is known, or the version has
                no list model.
        """
        return recommendation.recommend(self, user_ids, n, history, exclude_seen, candidates, exclude, diversity)

    def similar_items(self, item_ids: Ids, n: int = 10) -> list[recommendation.SimilarItems]:
        """For each item the n others that a history with it speaks for most; raises InputError for an unknown item."""
        return recommendation.similar_items(self, item_ids, n)

    def explain(self, user_id: str, item_id: str, history: History | None = None) -> recommendation.Explanation:
        """Which items of a history speak for an item, and what rating is expected; raises InputError if unknown."""
        return recommendation.explain(self, user_id, item_id, history)

    def save(self, folder: Path) -> None:
        """Write the recommender as JSON, Parquet and NumPy arrays; no pickle."""
        folder.mkdir(parents=True, exist_ok=True)
        described = save_knowledge(self.knowledge, folder)
        description = {
            "format": FORMAT,
            "family": self.family,
            "config": self.config.model_dump(),
            **described,
            "weights": self._save_weights(folder),
        }
        if self.lists is not None:
            description["lists"] = self.lists.save(folder)
        text = json.dumps(description, indent=2)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Folded:
    """A recommender that knows the users, and how many of their ratings were of items it does not know."""

    recommender: Recommender
    ignored: int
