"""Draws from conjugate distributions, for a Gibbs sampler (Gelman et al., "Bayesian Data Analysis", 2013, ch. 3)."""

import math

import torch
from torch import Tensor

SPREADS = tuple(2 ** (step / 4) for step in range(33))  # from 1, where precisions differ by their mean, to 256
MEAN_WEIGHT = 2.0  # beta_0 of Salakhutdinov and Mnih (2008): how many rows' worth of evidence says the mean is 0


def draw_gamma(shape: Tensor, rate: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma variates of mean shape / rate, elementwise."""
    return torch._standard_gamma(shape, generator=generator) / rate


def draw_spread(counts: Tensor, half_errors: Tensor, generator: torch.Generator) -> float:
    """The a of precisions lambda ~ Gamma(a, a), one a row, given only what the rows' ratings say.

    The precisions are integrated out, so that a moves freely; its prior is uniform on the logarithms of SPREADS. To be
    followed by a draw of the precisions. The generator is a CPU one.

    Args:
        counts: ratings of each row, (n,).
        half_errors: half their sum of square errors, each times the precision that all rows share, (n,).
    """
    shape, rate, n = counts.double() / 2, half_errors.double(), len(counts)
    shapes, times = torch.unique(shape, return_counts=True)  # far fewer than rows: the gamma function is the dear one
    weights = []
    for a in SPREADS:
        gammas = times.double() @ torch.lgamma(shapes + a) + n * (a * math.log(a) - math.lgamma(a))
        weights.append(float(gammas - (shape + a) @ torch.log(rate + a)))
    log_weight = torch.tensor(weights, dtype=torch.float64)
    return SPREADS[int(torch.multinomial(log_weight.softmax(0), 1, generator=generator))]


def draw_normal_wishart(rows: Tensor, generator: torch.Generator, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """A mean (d,) and a precision (d, d) given rows (n, d) drawn with them, in float64 on the CPU.

    The prior is that of Salakhutdinov and Mnih (2008), section 3.2: mean 0, as many degrees of freedom as dimensions,
    W_0 = I; but the inverse of W_0 has `width` on its diagonal, except for the last dimension, the bias. The generator
    is a CPU one.
    """
    n, d = rows.shape
    mean = rows.mean(0, dtype=torch.float64).cpu() if n else torch.zeros(d, dtype=torch.float64)
    centred = rows - mean.to(rows)
    scatter = (centred.T @ centred).double().cpu()
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
    """The width of draw_normal_wishart, of prior Gamma(1, 1), given the precision (d, d) drawn with it."""
    d = len(precision)
    shape = torch.tensor(1 + d * (d - 1) / 2, dtype=torch.float64)
    return float(draw_gamma(shape, 1 + precision.diagonal()[:-1].sum() / 2, generator))


def draw_stretch(moments: Tensor, width: float, generator: torch.Generator) -> float:
    """The factor s by which all factors of one side grow, with their prior: Lambda / s^2, width * s^2.

    A Gibbs step along the group of scalings (Liu and Sabatti, "Generalised Gibbs sampler", Biometrika 2000, theorem
    1). The normal and Wishart densities do not change along it, so that what is left, in log s, is the likelihood
    and the prior of the width, Gamma(1, 1). Drawn on a grid of log s from -5 to 5 that is made finer around the mode.

    Args:
        moments: sums over the ratings, each times its precision, of x^2 and x r; x is the product of the factors and
            r what all else leaves of the rating.
    """
    squares, products = moments.tolist()

    middle, reach = 0.0, 5.0
    for _ in range(4):
        steps = torch.linspace(middle - reach, middle + reach, 201, dtype=torch.float64)
        by = steps.exp()
        density = 2 * steps + products * by - (squares / 2 + width) * by.square()
        middle = float(steps[density.argmax()])
        likely = steps[density > density.max() - 30]
        reach = max(float((likely - middle).abs().max()), reach / 50)
    chosen = torch.multinomial((density - density.max()).exp(), 1, generator=generator)
    return math.exp(float(steps[int(chosen)]))


def _draw_wishart(scale: Tensor, freedom: int, generator: torch.Generator) -> Tensor:
    """Bartlett's decomposition: with scale = L L', L A A' L' where A is triangular, of chi and normal variates."""
    d = len(scale)
    lower = torch.tril(torch.randn(d, d, generator=generator, dtype=torch.float64), -1)
    shapes = (freedom - torch.arange(d, dtype=torch.float64)) / 2
    lower += torch.diag((2 * torch._standard_gamma(shapes, generator=generator)).sqrt())
    root: Tensor = torch.linalg.cholesky(scale) @ lower
    return root @ root.T
