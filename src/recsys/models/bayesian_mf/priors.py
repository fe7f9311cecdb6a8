"""Draws of a Gibbs sampler from conjugate distributions (Gelman et al., "Bayesian Data Analysis", 2013, chapter 3)."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Floats

SPREADS = tuple(2 ** (step / 4) for step in range(33))  # from 1, where precisions differ most, to 256
MEAN_WEIGHT = 2.0  # beta_0 of Salakhutdinov and Mnih (2008): the prior of the mean weighs as much as this many rows


def draw_gamma(shape: Tensor, rate: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma variates with the mean shape / rate, one for each element."""
    return torch._standard_gamma(shape, generator=generator) / rate


def spread_weights(counts: Tensor) -> Tensor:
    """What the log density of each of SPREADS has of the rows' numbers of ratings, (n,), alone: shape (33,)."""
    spreads = torch.tensor(SPREADS, dtype=torch.float64, device=counts.device)
    shapes, times = torch.unique(counts.double() / 2, return_counts=True)
    own = len(counts) * (spreads * spreads.log() - torch.lgamma(spreads))
    weights: Tensor = times.double() @ torch.lgamma(shapes[:, None] + spreads) + own
    return weights


def draw_spread(
    counts: Tensor, half_errors: Tensor, generator: torch.Generator, weights: Tensor | None = None
) -> float:
    """A draw of a, where each row has a precision lambda ~ Gamma(a, a), given the errors of the rows.

    The precisions are integrated out, so that a moves freely. Draw the precisions next. The prior of a is uniform on
    SPREADS, that is, on its logarithm.

    Args:
        counts: number of ratings of each row, shape (n,).
        half_errors: half the sum of each row's squared errors, times the precision that all rows share, shape (n,).
        generator: a generator on the CPU.
        weights: spread_weights of the counts, if they are known.
    """
    spreads = torch.tensor(SPREADS, dtype=torch.float64, device=counts.device)
    logs = torch.log(spreads[:, None] + half_errors.double())  # (33, n)
    by_shape, total = (logs @ torch.stack((counts.double() / 2, torch.ones_like(logs[0])), 1)).unbind(1)
    weights = spread_weights(counts) if weights is None else weights
    log_weight = (weights - by_shape - spreads * total).cpu()
    return SPREADS[int(torch.multinomial(log_weight.softmax(0), 1, generator=generator))]


def draw_normal_wishart(rows: Tensor, generator: torch.Generator, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """A draw of the mean (d,) and the precision (d, d) of the normal distribution of `rows` (n, d), in float64.

    The prior is that of Salakhutdinov and Mnih (2008), section 3.2: mean 0, as many degrees of freedom as dimensions,
    and W_0 = I. Here the diagonal of the inverse of W_0 is `width`, except for the last dimension, the bias, where it
    stays 1. `generator` and what is returned are on the CPU.
    """
    n, d = rows.shape
    mean = rows.mean(0, dtype=torch.float64).cpu() if n else torch.zeros(d, dtype=torch.float64)
    centred = rows - mean.to(rows)
    return draw_normal_wishart_of(n, mean, (centred.T @ centred).double().cpu(), generator, width)


def draw_normal_wishart_of(
    n: int, mean: Tensor, scatter: Tensor, generator: torch.Generator, width: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same of n rows, given their mean (d,) and their scatter around it (d, d), in float64 on the CPU."""
    d = len(mean)
    shrink = MEAN_WEIGHT * n / (MEAN_WEIGHT + n)
    widths = torch.full((d,), width, dtype=torch.float64)
    widths[-1] = 1
    scale = torch.linalg.inv(torch.diag(widths) + scatter + shrink * torch.outer(mean, mean))
    precision = _draw_wishart((scale + scale.T) / 2, d + n, generator)
    factor = torch.linalg.cholesky(precision * (MEAN_WEIGHT + n))
    noise = torch.randn(d, 1, generator=generator, dtype=torch.float64)
    step = torch.linalg.solve_triangular(factor.T, noise, upper=True)[:, 0]
    return n * mean / (MEAN_WEIGHT + n) + step, precision


def draw_width(precision: Tensor, generator: torch.Generator) -> float:
    """A draw of the `width` of draw_normal_wishart, whose prior is Gamma(1, 1), given the precision (d, d)."""
    d = len(precision)
    shape = torch.tensor(1 + d * (d - 1) / 2, dtype=torch.float64)
    return float(draw_gamma(shape, 1 + precision.diagonal()[:-1].sum() / 2, generator))


def draw_stretch(moments: Tensor, width: float, generator: torch.Generator) -> float:
    """A draw of s, by which all factors of one entity are multiplied; Lambda becomes Lambda / s^2, width width * s^2.

    This is a Gibbs step along the group of scalings (Liu and Sabatti, "Generalised Gibbs sampler", Biometrika 2000,
    theorem 1). The normal and Wishart densities stay constant along it. So the density of log s depends only on the
    likelihood and on the prior of the width, Gamma(1, 1). It is evaluated on a grid of log s from -5 to 5, which is
    then made finer around the mode.

    Args:
        moments: sums over the ratings, each times its precision, of x^2 and of x r, shape (2,). x is the product of the
            factors, and r is what the biases leave of the rating.
        width: the present width.
        generator: a generator on the CPU.
    """
    squares, products = moments.tolist()

    def density(steps: Floats) -> Floats:
        by = np.exp(steps)
        return np.asarray(2 * steps + products * by - (squares / 2 + width) * by**2)

    return _draw_scale(density, generator)


def draw_bias_stretch(moments: Tensor, precision: float, d: int, generator: torch.Generator) -> float:
    """The same for the biases of one entity, whose width in the prior of Lambda is 1 and does not move along.

    So the density of log s also holds what the Wishart prior (d, d) has of s. Without this step, the spread of the
    biases of users with a rating or two changes only a little at every sweep.

    Args:
        moments: sums as of draw_stretch. x is the bias, and r is what all else leaves of the rating.
        precision: the bias's element on the diagonal of Lambda.
        d: the number of factors and 1.
        generator: a generator on the CPU.
    """
    squares, products = moments.tolist()

    def density(steps: Floats) -> Floats:
        by = np.exp(steps)
        return np.asarray(products * by - squares / 2 * by**2 - d * steps - precision / 2 / by**2)

    return _draw_scale(density, generator)


def _draw_scale(density: Callable[[Floats], Floats], generator: torch.Generator) -> float:
    """A draw of s from the log density of log s."""
    middle, reach = 0.0, 5.0
    for _ in range(4):
        steps = np.linspace(middle - reach, middle + reach, 201)  # so few numbers cost PyTorch ten times as much
        log_density = density(steps)
        middle = float(steps[log_density.argmax()])
        likely = steps[log_density > log_density.max() - 30]
        reach = max(float(np.abs(likely - middle).max()), reach / 50)
    chosen = torch.multinomial(torch.from_numpy(np.exp(log_density - log_density.max())), 1, generator=generator)
    return math.exp(steps[int(chosen)])


def _draw_wishart(scale: Tensor, freedom: int, generator: torch.Generator) -> Tensor:
    """A Wishart matrix by Bartlett's decomposition.

    With scale = L L' it is L A A' L', where the triangular A has chi variates on its diagonal and normal ones below.
    """
    d = len(scale)
    lower = torch.tril(torch.randn(d, d, generator=generator, dtype=torch.float64), -1)
    shapes = (freedom - torch.arange(d, dtype=torch.float64)) / 2
    lower += torch.diag((2 * torch._standard_gamma(shapes, generator=generator)).sqrt())
    root: Tensor = torch.linalg.cholesky(scale) @ lower
    return root @ root.T
