"""A recommender's expected ratings as a product of two tables: what a compact form of it is made from."""

from dataclasses import dataclass
from typing import Literal

from recsys.arrays import Array, Floats


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
