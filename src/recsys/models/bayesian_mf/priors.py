"""Draws of a Gibbs sampler from conjugate distributions (Gelman et al., "Bayesian Data Analysis", 2013, chapter 3)."""

import math
from collections.abc import Callable

import numpy as np

from recsys.arrays import Array, Floats
from recsys.models.bayesian_mf.backend import Backend, Table

SPREADS = np.array([2 ** (step / 4) for step in range(33)])
"""From 1, where precisions differ most, to 256."""
_FROM_MINUS_ONE_TO_ONE = np.linspace(-1, 1, 201)
MEAN_WEIGHT = 2.0  # beta_0 of Salakhutdinov and Mnih (2008): the prior of the mean weighs as much as this many rows


def draw_gamma(shape: float, rate: float, generator: np.random.Generator) -> float:
    """A gamma variate with the mean shape / rate."""
    return float(generator.standard_gamma(shape)) / rate


def spread_weights(counts: Array) -> Floats:
    """What the log density of each of SPREADS has of the rows' numbers of ratings, (n,), alone: shape (33,)."""
    from scipy.special import gammaln

    shapes, times = np.unique(counts / 2, return_counts=True)
    own = len(counts) * (SPREADS * np.log(SPREADS) - gammaln(SPREADS))
    return np.asarray(times @ gammaln(shapes[:, None] + SPREADS) + own)


def draw_spread(
    half_counts: Table, half_errors: Table, generator: np.random.Generator, weights: Floats, backend: Backend
) -> float:
    """A draw of a, where each row has a precision lambda ~ Gamma(a, a), given the errors of the rows.

    The precisions are integrated out, so that a moves freely. Draw the precisions next. The prior of a is uniform on
    SPREADS, that is, on its logarithm.

    Args:
        half_counts: half the number of ratings of each row, shape (n,), in float64.
        half_errors: half the sum of each row's squared errors, times the precision that all rows share, shape (n,).
        generator: of the single number that is drawn.
        weights: spread_weights of the counts.
        backend: that of the tables.
    """
    logs = backend.xp.log(backend.table(SPREADS)[:, None] + half_errors)  # (33, n), in float64
    by_shape, total = backend.array(logs @ half_counts), backend.array(logs.sum(1))
    log_weight = weights - by_shape - SPREADS * total
    return float(SPREADS[_draw_index(np.exp(log_weight - log_weight.max()), generator)])


def draw_normal_wishart(
    n: int, mean: Floats, scatter: Floats, generator: np.random.Generator, width: float = 1.0
) -> tuple[Floats, Floats]:
    """A draw of the mean (d,) and the precision (d, d) of the normal distribution of n rows.

    The prior is that of Salakhutdinov and Mnih (2008), section 3.2: mean 0, as many degrees of freedom as dimensions,
    and W_0 = I. Here the diagonal of the inverse of W_0 is `width`, except for the last dimension, the bias, where it
    stays 1.

    Args:
        n: number of rows.
        mean: of the rows, shape (d,).
        scatter: of the rows around their mean: the sum of the products of each row with itself, shape (d, d).
        generator: of all random numbers.
        width: omega.
    """
    d = len(mean)
    shrink = MEAN_WEIGHT * n / (MEAN_WEIGHT + n)
    widths = np.full(d, width)
    widths[-1] = 1
    scale = np.linalg.inv(np.diag(widths) + scatter + shrink * np.outer(mean, mean))
    precision = _draw_wishart((scale + scale.T) / 2, d + n, generator)
    factor = np.linalg.cholesky(precision * (MEAN_WEIGHT + n))
    step = np.linalg.solve(factor.T, generator.standard_normal(d))
    return n * mean / (MEAN_WEIGHT + n) + step, precision


def draw_width(precision: Floats, generator: np.random.Generator) -> float:
    """A draw of the `width` of draw_normal_wishart, whose prior is Gamma(1, 1), given the precision (d, d)."""
    d = len(precision)
    return draw_gamma(1 + d * (d - 1) / 2, 1 + float(precision.diagonal()[:-1].sum()) / 2, generator)


def draw_stretch(moments: Floats, width: float, generator: np.random.Generator) -> float:
    """A draw of s, by which all factors of one entity are multiplied; Lambda becomes Lambda / s^2, width width * s^2.

    This is a Gibbs step along the group of scalings (Liu and Sabatti, "Generalised Gibbs sampler", Biometrika 2000,
    theorem 1). The normal and Wishart densities stay constant along it. So the density of log s depends only on the
    likelihood and on the prior of the width, Gamma(1, 1). It is evaluated on a grid of log s from -5 to 5, which is
    then made finer around the mode.

    Args:
        moments: sums over the ratings, each times its precision, of x^2 and of x r, shape (2,). x is the product of the
            factors, and r is what the biases leave of the rating.
        width: the present width.
        generator: of all random numbers.
    """
    squares, products = moments.tolist()

    def density(steps: Floats) -> Floats:
        by = np.exp(steps)
        return np.asarray(2 * steps + products * by - (squares / 2 + width) * by**2)

    return _draw_scale(density, generator)


def draw_bias_stretch(moments: Floats, precision: float, d: int, generator: np.random.Generator) -> float:
    """The same for the biases of one entity, whose width in the prior of Lambda is 1 and does not move along.

    So the density of log s also holds what the Wishart prior (d, d) has of s. Without this step, the spread of the
    biases of users with a rating or two changes only a little at every sweep.

    Args:
        moments: sums as of draw_stretch. x is the bias, and r is what all else leaves of the rating.
        precision: the bias's element on the diagonal of Lambda.
        d: the number of factors and 1.
        generator: of all random numbers.
    """
    squares, products = moments.tolist()

    def density(steps: Floats) -> Floats:
        by = np.exp(steps)
        return np.asarray(products * by - squares / 2 * by**2 - d * steps - precision / 2 / by**2)

    return _draw_scale(density, generator)


def _draw_scale(density: Callable[[Floats], Floats], generator: np.random.Generator) -> float:
    """A draw of s from the log density of log s."""
    middle, reach = 0.0, 5.0
    for _ in range(4):
        steps = middle + reach * _FROM_MINUS_ONE_TO_ONE
        log_density = density(steps)
        middle = float(steps[log_density.argmax()])
        likely = steps[log_density > log_density.max() - 30]
        reach = max(float(np.abs(likely - middle).max()), reach / 50)
    return math.exp(steps[_draw_index(np.exp(log_density - log_density.max()), generator)])


def _draw_index(weights: Floats, generator: np.random.Generator) -> int:
    """One of n positions, each with a chance in proportion to its weight, (n,)."""
    ends = weights.cumsum()
    return int(np.searchsorted(ends, generator.random() * ends[-1], "right"))


def _draw_wishart(scale: Floats, freedom: int, generator: np.random.Generator) -> Floats:
    """A Wishart matrix by Bartlett's decomposition.

    With scale = L L' it is L A A' L', where the triangular A has chi variates on its diagonal and normal ones below.
    """
    d = len(scale)
    lower = np.tril(generator.standard_normal((d, d)), -1)
    np.fill_diagonal(lower, np.sqrt(2 * generator.standard_gamma((freedom - np.arange(d)) / 2)))
    root = np.linalg.cholesky(scale) @ lower
    return np.asarray(root @ root.T)
