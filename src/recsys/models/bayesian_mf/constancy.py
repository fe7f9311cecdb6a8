"""Users who always give the same rating: what they gave tells their next rating better than any item does.

Biases and factors learn so only from many ratings of a user, since their priors hold the user back. Where validation
rows say that it helps, the prediction for such a user is drawn towards the one level that the user gave.
"""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Codes, Floats
from recsys.data.interactions import Interactions

STRENGTHS = (0.5, 0.75, 0.9)  # that are tried


@dataclass(frozen=True, eq=False)
class Constancy:
    """How much of a prediction is the one level that a user gave."""

    strength: float  # of two equal ratings; what is left of the model after k is (1 - strength)^(k - 1)
    level: Floats  # (n_users,) 0 where the weight is 0
    weight: Floats  # (n_users,) from 0 to 1; 0 for users with one rating or several levels

    def blend(self, users: Codes, ratings: Floats) -> Floats:
        """Ratings that a model expects of users, (n,), drawn towards their levels."""
        weight = self.weight[users]
        return np.asarray((1 - weight) * ratings + weight * self.level[users])

    def with_users(self, rows: Interactions, n_users: int) -> "Constancy":
        """The same for `n_users` users, where those of `rows` have these ratings and no others."""
        new = learn_constancy(rows, n_users, self.strength)
        rated = np.bincount(rows.users, minlength=n_users) > 0
        known = np.arange(len(self.weight))[~rated[: len(self.weight)]]
        new.level[known], new.weight[known] = self.level[known], self.weight[known]
        return new


def learn_constancy(rows: Interactions, n_users: int, strength: float) -> Constancy:
    """The level of each user with at least two ratings, all equal, and how much it weighs.

    Args:
        rows: ratings in codes below `n_users`.
        n_users: number of users.
        strength: from 0 to 1, the weight of two equal ratings.
    """
    counts = np.bincount(rows.users, minlength=n_users)
    lowest, highest = np.full(n_users, np.inf), np.full(n_users, -np.inf)
    np.minimum.at(lowest, rows.users, rows.ratings)
    np.maximum.at(highest, rows.users, rows.ratings)
    constant = (counts > 1) & (lowest == highest)
    weight = np.where(constant, 1 - (1 - strength) ** np.maximum(counts - 1, 0), 0.0)
    return Constancy(strength, np.where(constant, lowest, 0.0), weight)
