"""A recommender's expected ratings as products of two tables: what other forms of it are made from."""

from dataclasses import dataclass
from typing import Literal

from recsys.arrays import Array, Floats

UNCERTAIN = 0.1
"""What is taken for the share of uncertainty in a rating's variance where a family does not know it."""


@dataclass(frozen=True, eq=False)
class RatingFactors:
    """Expected ratings, not clipped: `constant + scale * users @ items.T`, and what makes them probabilities.

    The probability of a like is `link(slope * (rating - threshold) / spread)`, where the square of the spread is
    `user_variance + item_variance` and link is the standard normal distribution function or the logistic function.
    """

    users: Array  # (n_users, r)
    items: Array  # (n_items, r)
    constant: float
    scale: float
    user_variance: Floats  # (n_users,) of a rating, in square rating units
    item_variance: Floats  # (n_items,) what an item adds to it; may be below 0 for an item that is known well
    slope: float
    threshold: float
    link: Literal["probit", "logit"]
    uncertain: float = UNCERTAIN
    """The share of `user_variance`, on average, that is uncertainty about the expected rating; the rest is noise."""


@dataclass(frozen=True, eq=False)
class ScoringDraws:
    """All that a recommender's answers for known users and items are computed from, exactly.

    A rating by draw s is `constant + scale * users[u, s] @ items[i, s]`; the expected rating is their mean.
    The probability of a like is `link(slope * (expected rating - threshold) / spread)`, where the square of the spread
    is the variance between the draws plus `user_variance`.
    """

    users: Array  # (n_users, s, r)
    items: Array  # (n_items, s, r)
    constant: float
    scale: float
    user_variance: Floats  # (n_users,) in square rating units
    slope: float
    threshold: float
    link: Literal["probit", "logit"]

    @classmethod
    def of_one(cls, factors: RatingFactors) -> "ScoringDraws":
        """Of factors that are exact: one draw, and nothing that an item adds to the variance."""
        return cls(
            factors.users[:, None],
            factors.items[:, None],
            factors.constant,
            factors.scale,
            factors.user_variance,
            factors.slope,
            factors.threshold,
            factors.link,
        )
