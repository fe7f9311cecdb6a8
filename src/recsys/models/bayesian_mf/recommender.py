"""The recommender of Bayesian matrix factorization, as it predicts and is saved."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Array, Codes, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.models.base.factors import RatingFactors, ScoringDraws
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.constancy import Constancy
from recsys.models.bayesian_mf.posterior import SAVED_NAMES, PosteriorDraws, normal_cdf, pack_factors
from recsys.models.bayesian_mf.sessions import Sessions

_LEAST_SLOPE = 1e-6


class BayesianRecommender(Recommender):
    """Draws from the posterior, for ratings less `centre` over `unit`; a rating above `threshold` counts as a like.

    If it `is_plain`, it predicts by the damped biases of its knowledge, and the draws, of biases alone, are for the
    standard deviation.
    """

    family = "bayesian_mf"
    config: Config
    averaged = False
    """Whether the biases of its knowledge are the means of the draws."""
    damping = 0.0
    """That of the biases by which it predicts, where it is not the baseline's; else 0."""
    own_fallback = False
    """Whether users' biases of its knowledge, which are for unknown items, are from the draws."""
    common_noise = False
    """Whether the noise of all users is the same where it says how probable a like is."""
    noise_limit = math.inf
    """What the precision of a rating was allowed to be at most while sampling, in the unit of the draws."""
    constancy: Constancy | None = None
    """How users who always give the same rating are predicted, where that is not as all others are."""

    def __init__(
        self,
        knowledge: Knowledge,
        config: Config,
        draws: PosteriorDraws,
        centre: float,
        unit: float,
        threshold: float,
        user_noise: bool,
        is_plain: bool = False,
    ) -> None:
        super().__init__(knowledge, config)
        self.draws = draws
        self.centre = centre
        self.unit = unit
        self.threshold = threshold
        self.user_noise = user_noise
        self.is_plain = is_plain

    @property
    def factors(self) -> int:
        """The number of factors; 0 if biases alone did as well."""
        return int(self.draws.mean.shape[1]) - 1

    @property
    def implicit(self) -> bool:
        """Whether it learnt from who rated what."""
        return bool(self.draws.projection.shape[1])

    @property
    def uses_time(self) -> bool:
        """Whether predictions for given moments differ from those without."""
        return self.time and not self.is_plain

    @property
    def time(self) -> bool:
        """Whether it learnt from time."""
        return len(self.draws.sessions) > 0

    def choices(self) -> dict[str, object]:
        """Which terms the validation rows were for, how many factors there are, and how many draws were kept."""
        return {
            "sampled": not self.is_plain or self.averaged,
            "factors": self.factors,
            "user_noise": self.user_noise,
            "common_noise": self.common_noise,
            "implicit": self.implicit,
            "time": self.time,
            "samples": len(self.draws),
            "constancy": self.constancy.strength if self.constancy else 0.0,
        }

    def predictive_std(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Floats:
        """Standard deviation of the rating that each pair of raw ids would give, shape (n,).

        Of an unknown user or item nothing is known but the biases: theirs is that of all ratings.
        """
        users, items = self.knowledge.user_codes(user_ids), self.knowledge.item_codes(item_ids)
        known = (users >= 0) & (items >= 0)
        spread = np.full(len(users), self.unit)
        times = None if timestamps is None else timestamps[known]
        variance = self.draws.predict(users[known], items[known], times, self._share(users[known]))[1]
        spread[known] = self.unit * np.sqrt(variance)
        return spread

    def rating_factors(self) -> RatingFactors:
        """All draws side by side: their mean is one inner product. The spread between them is told by user and item."""
        if self.is_plain:
            return self._plain_factors()
        draws = self.draws
        user_part, item_part = draws.spread_parts()
        if self.constancy is not None:
            user_part = user_part * (1 - self.constancy.weight) ** 2
        rest = draws.variance + draws.noise + draws.session_variance[-1]
        unknown = float(np.mean(draws.variance + user_part))
        return RatingFactors(
            users=self._user_draws().reshape(len(draws.users), -1),
            items=draws.items.reshape(len(draws.items), -1),
            constant=self.centre,
            scale=self.unit / len(draws),
            user_variance=self.unit**2 * (rest + user_part),
            item_variance=self.unit**2 * item_part,
            slope=1.0,
            threshold=self.threshold,
            link="probit",
            uncertain=unknown / float(np.mean(rest + user_part)),
        )

    def scoring_draws(self) -> ScoringDraws:
        """The draws; of ratings without a moment."""
        if self.is_plain:
            return ScoringDraws.of_one(self._plain_factors())
        draws = self.draws
        return ScoringDraws(
            users=self._user_draws(),
            items=draws.items,
            constant=self.centre + self.unit * float(draws.session_bias[-1]),
            scale=self.unit,
            user_variance=self.unit**2 * (draws.variance + draws.noise + draws.session_variance[-1]),
            slope=1.0,
            threshold=self.threshold,
            link="probit",
        )

    def _user_draws(self) -> Array:
        """The users' draws, (n_users, s, k + 2), whose products with the items' are the ratings as predicted."""
        users = self.draws.users
        if self.constancy is None:
            return users
        weight = self.constancy.weight.astype(np.float32)
        drawn = users * (1 - weight)[:, None, None]
        drawn[:, :, -2] += (weight * (self.constancy.level - self.centre) / self.unit).astype(np.float32)[:, None]
        return drawn

    def _plain_factors(self) -> RatingFactors:
        biases, calibration = self.knowledge.biases, self.knowledge.calibration
        weight, level = np.zeros(len(biases.user)), np.zeros(len(biases.user))
        if self.constancy is not None:
            weight, level = self.constancy.weight, self.constancy.level
        slope = calibration.slope or _LEAST_SLOPE  # of 0, no threshold could tell the one probability
        return RatingFactors(
            users=np.column_stack(((1 - weight) * biases.user + weight * (level - biases.mean), 1 - weight)),
            items=np.column_stack((np.ones(len(biases.item)), biases.item)),
            constant=biases.mean,
            scale=1.0,
            user_variance=np.ones(len(biases.user)),
            item_variance=np.zeros(len(biases.item)),
            slope=slope,
            threshold=-calibration.intercept / slope,
            link="logit",
        )

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        if self.is_plain:
            return self._score_plainly(users, items)
        return self._predictions(users, *self.draws.predict(users, items, share=self._share(users)))

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        if self.is_plain:
            return self._score_plainly(users, items)
        return self._predictions(users, *self.draws.predict(users, items, timestamps, self._share(users)))

    def _score_plainly(self, users: Codes, items: Codes) -> Predictions:
        rating = self._blend(users, self.knowledge.biases.rating(users, items))
        return Predictions(rating, self.knowledge.calibration.probability(rating))

    def _share(self, users: Codes) -> Floats | float:
        """How much of the answers for users, (n,), is what the draws say."""
        return 1.0 if self.constancy is None else 1 - self.constancy.weight[users]

    def _blend(self, users: Codes, ratings: Floats) -> Floats:
        return ratings if self.constancy is None else self.constancy.blend(users, ratings)

    def _predictions(self, users: Codes, mean: Floats, variance: Floats) -> Predictions:
        rating = self._blend(users, self.centre + self.unit * mean)
        return Predictions(rating, normal_cdf((rating - self.threshold) / (self.unit * np.sqrt(variance))))

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "BayesianRecommender":
        """Draw the factors of the users of `rows`, given the items' kept draws."""
        ratings = (rows.ratings - self.centre) / self.unit
        draws = self.draws.fold_in(rows, len(knowledge.user_ids), ratings)
        folded = BayesianRecommender(
            knowledge, self.config, draws, self.centre, self.unit, self.threshold, self.user_noise, self.is_plain
        )
        if self.constancy is not None:
            folded.constancy = self.constancy.with_users(rows, len(knowledge.user_ids))
        return folded

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        draws, constancy = self.draws, self.constancy
        levels = {} if constancy is None else {"level": constancy.level, "constancy": constancy.weight}
        save_arrays(
            folder / "samples.npz",
            **levels,
            user_factors=draws.users[:, :, :-1].astype(np.float16),
            item_factors=np.delete(draws.items, -2, axis=2).astype(np.float16),
            **{SAVED_NAMES.get(name, name): getattr(draws, name) for name in _SMALL},
            **{f"run_{name}": getattr(draws.sessions, name) for name in _SESSIONS},
        )
        numbers = {"centre": self.centre, "unit": self.unit, "border": self.threshold}
        limit = None if math.isinf(self.noise_limit) else self.noise_limit
        noise = {"user_noise": self.user_noise, "common_noise": self.common_noise, "noise_limit": limit}
        plain = {"plain": self.is_plain, "averaged": self.averaged, "damping": self.damping}
        plain["own_fallback"] = self.own_fallback
        return numbers | noise | plain | {"constancy": constancy.strength if constancy else 0.0}


_SMALL = (
    "noise",
    "variance",
    "second",
    "precision",
    "mean",
    "inverse",
    "link",
    "projection",
    "session_bias",
    "session_variance",
)
_SESSIONS = ("users", "starts", "ends")


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> BayesianRecommender:
    """Read the draws back."""
    arrays = load_arrays(folder / "samples.npz")
    tables = (arrays[f"{entity}_factors"].swapaxes(0, 1) for entity in ("user", "item"))
    sessions = Sessions(*(arrays[f"run_{name}"] for name in _SESSIONS))
    n_users, d = len(arrays["noise"]), arrays["mean"].shape[1]
    # Versions of the first release kept draws of the users' factors, not means, and so no variance within a draw.
    arrays = {"variance": np.zeros(n_users), "second": np.zeros((d, d))} | arrays
    small = {name: arrays[SAVED_NAMES.get(name, name)] for name in _SMALL}
    draws = PosteriorDraws(*pack_factors(list(zip(*tables, strict=True))), sessions=sessions, **small)
    weights = description["weights"]
    loaded = BayesianRecommender(
        knowledge,
        Config(**description["config"]),
        draws,
        float(weights["centre"]),
        float(weights["unit"]),
        float(weights["border"]),
        bool(weights.get("user_noise", True)),  # versions of earlier releases all had it
        bool(weights.get("plain", False)),
    )
    loaded.averaged = bool(weights.get("averaged", False))
    loaded.damping = float(weights.get("damping", 0))
    loaded.own_fallback = bool(weights.get("own_fallback", False))
    loaded.common_noise = bool(weights.get("common_noise", False))
    loaded.noise_limit = weights.get("noise_limit") or math.inf
    if weights.get("constancy"):
        loaded.constancy = Constancy(float(weights["constancy"]), arrays["level"], arrays["constancy"])
    return loaded
