"""The rating that matrix factorization predicts: the only place where its formula is written.

In the unit of the ratings, for user u and item i:

    rating(u, i) = mean + user_bias[u] + item_bias[i] + user_factors[u] · item_factors[i]

During training the ratings are standardised to mean 0 and standard deviation 1, and each factor has a weight:

    rating(u, i) = user_bias[u] + item_bias[i] + (user_factors[u] * item_factors[i]) · weight

The functions add the same terms in different orders. The order decides the last digits of a result, so it is kept.
This module imports PyTorch for type checks only: serving does without it.
"""

from typing import TYPE_CHECKING

from recsys.arrays import Floats

if TYPE_CHECKING:
    from torch import Tensor


def rating(mean: float, user_bias: Floats, item_bias: Floats, product: Floats) -> Floats:
    """Ratings of n pairs, from their biases and the inner products of their factors, each (n,)."""
    return mean + user_bias + item_bias + product


def user_part(ratings: Floats, mean: float, item_bias: Floats) -> Floats:
    """What the user's bias and factors have to explain of n ratings: the formula solved for them, (n,)."""
    return ratings - mean - item_bias


def training_rating(product: "Tensor", weight: "Tensor", user_bias: "Tensor", item_bias: "Tensor") -> "Tensor":
    """Standardised ratings of a batch, (n,), as a gradient step computes them.

    Args:
        product: elementwise products of the factors, (n, k).
        weight: of each factor, (k,).
        user_bias: (n,).
        item_bias: (n,).
    """
    return (product @ weight).add_(user_bias).add_(item_bias)


def predicted_rating(product: "Tensor", weight: "Tensor", user_bias: "Tensor", item_bias: "Tensor") -> "Tensor":
    """The same, as validation computes them: each row's result does not depend on the other rows."""
    return (product * weight).sum(1) + (user_bias + item_bias)
