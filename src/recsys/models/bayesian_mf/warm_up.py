"""How many sweeps a new chain makes before its draws count."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmUp:
    """Sweeps of a chain that are not kept."""

    start: int
    """Alternating ridge regressions: factors are set to their conditional means under a fixed prior."""
    burn_in: int
    """Draws after the start."""
    plain: int
    """Draws after the start that are not overrelaxed: the chain finds how large factors and noise are."""


# A longer start over-fits, and it takes dozens of draws to recover: on MovieLens the mean of 30 draws is worse, too.
SHORT = WarmUp(start=2, burn_in=4, plain=5)
LONG = WarmUp(start=6, burn_in=10, plain=8)


def warm_up(n_ratings: int, n_rows: int, factors: int) -> WarmUp:
    """Of a chain with these ratings by, and of, so many users and items.

    Where there are fewer ratings than factors, the noise takes long to find its level. Biases alone have no start to
    get over, and may be sampled of such ratings.
    """
    return SHORT if 0 < n_rows * factors <= n_ratings else LONG
