"""Gram matrices of the ratings of many rows in one batched product, and what follows from them.

For one row (a user, say) with ratings of some items, let G have a line [factors, 1, rest] for each rating: the item's
factors, a one for the user's bias, and the rating less the item's bias. Then G'G contains the Gram matrix of the
regressors, the right-hand side and the sum of squares of the regression of `rest` on [factors, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk, fill_table

_BIG = 1e12


def solver(conditional: Conditional) -> Callable[[DeviceChunk], None]:
    """A function that draws the rows of a chunk, in batches of tensors."""
    target, (n, d) = conditional.target, conditional.others.shape
    table = fill_table(target.new_zeros(n + 1, d + 1), conditional.others, conditional.other_precision)
    new, expected, sums = conditional.results.tensor_split([d, 2 * d], 1)
    rest = conditional.rest

    def solve(chunk: DeviceChunk) -> None:
        rows = chunk.rows
        gram, gathered = make_grams(table, target, chunk)
        weight, pull, noise = conditional.weight[rows], conditional.pull[rows], conditional.noise[rows]
        drawn = draw_factors(gram, weight, conditional.inverse, pull, noise)
        overrelax(drawn, conditional.before[rows], conditional.overrelaxation)
        new[rows], expected[rows] = drawn.unbind(2)
        with_rest = torch.cat((drawn[:, :, :1], drawn.new_full((len(rows), 1, 1), -1.0)), 1)
        sums[rows] = sum_errors(gram, with_rest)
        if rest is not None:
            for block, positions in enumerate(chunk.positions):
                lines = gathered if gathered is not None else gather(table, target, chunk, block)
                rest[positions.flatten()] = -torch.bmm(lines, with_rest).flatten()

    return solve


def gather(table: Tensor, target: Tensor, chunk: DeviceChunk, block: int) -> Tensor:
    """G of every row of one block of the chunk, shape (rows, length, d + 1)."""
    positions, others = chunk.positions[block], chunk.others[block]
    gathered = table.index_select(0, others.flatten()).view(*others.shape, -1)
    ratings = target.index_select(0, positions.flatten()).view_as(positions)
    gathered[..., -1].addcmul_(ratings, gathered[..., -2])  # the column of ones holds the root of the precision
    return gathered


def make_grams(table: Tensor, target: Tensor, chunk: DeviceChunk) -> tuple[Tensor, Tensor | None]:
    """G'G of every row, shape (rows, d + 1, d + 1); and G, if the chunk has only one block."""
    gathered = gather(table, target, chunk, 0)
    gram = torch.bmm(gathered.mT, gathered)
    if len(chunk.positions) == 1:
        return gram, gathered
    for block in range(1, len(chunk.positions)):
        gathered = gather(table, target, chunk, block)
        gram += torch.bmm(gathered.mT, gathered)
    return gram, None


def draw_factors(gram: Tensor, weight: Tensor, inverse: Tensor, pull: Tensor, noise: Tensor) -> Tensor:
    """Factors drawn from their conditional distribution, and its mean: (rows, d, 2).

    With the posterior precision P = weight * gram + inverse and the right-hand side b, let P = L L'. The mean is
    P^-1 b and a draw is L'^-1 (L^-1 b + z). If P is extended by the row b', then the last row of its Cholesky factor is
    L^-1 b, so that a single triangular solve is left.

    Args:
        gram: G'G of each row, (rows, d + 1, d + 1).
        weight: precision of the row's ratings, (rows,).
        inverse: precision matrix of the prior, (d, d).
        pull: `inverse` times the mean of the row's prior, (rows, d).
        noise: z, standard normal numbers, (rows, d).
    """
    d = len(inverse)
    system = gram * weight[:, None, None]
    system[:, :d, :d] += inverse
    system[:, d, :d] += pull
    system[:, d, d] = _BIG  # the last pivot is not used; a large number keeps it positive
    lower = torch.linalg.cholesky_ex(system)[0]
    right = torch.stack((lower[:, d, :d] + noise, lower[:, d, :d]), 2)
    solved: Tensor = torch.linalg.solve_triangular(lower[:, :d, :d].mT, right, upper=True)
    return solved


def overrelax(drawn: Tensor, before: Tensor, by: float) -> None:
    """Turn fresh draws into draws that tend to lie on the other side of the conditional mean, in place.

    The chain's distribution stays the same (Adler, "Over-relaxation method for the Monte Carlo evaluation of the
    partition function", 1981), and averages over draws in a row settle sooner: their deviations cancel each other.

    Args:
        drawn: fresh draws and the means of their distributions, (rows, d, 2).
        before: the factors so far, (rows, d).
        by: how much of the distance of `before` from the mean is kept, with its sign turned; from 0 to 1.
    """
    fresh, mean = drawn.unbind(2)
    fresh.copy_(mean + math.sqrt(1 - by**2) * (fresh - mean) - by * (before - mean))


def sum_errors(gram: Tensor, with_rest: Tensor) -> Tensor:
    """Six sums over the ratings of each row, each rating times its precision: (rows, 6).

    They are the sums of (x - r)^2, x^2, x r, b^2, b (b + r - x) and b x. x is the product of the factors, r is what
    the two biases leave of the rating, and b is the row's bias, so that b + r - x is what all else leaves for it.
    `with_rest` holds [factors, bias, -1], (rows, d + 1, 1): G times it is the error.
    """
    product = with_rest.clone()
    product[:, -2:] = 0
    images = gram @ torch.cat((with_rest, product), 2)  # (rows, d + 1, 2)
    squares = (product * images).sum(1)  # x (x - r), x^2
    errors = (with_rest * images[:, :, :1]).sum((1, 2))
    bias = with_rest[:, -2, 0]
    sums = gram[:, -2, -2] * bias, images[:, -2, 0], images[:, -2, 1]  # of b, of x - r and of x
    biases = bias * sums[0], bias * (sums[0] - sums[1]), bias * sums[2]
    return torch.stack((errors, squares[:, 1], squares[:, 1] - squares[:, 0], *biases), 1)
