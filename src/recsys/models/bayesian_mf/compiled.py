"""Draws of many rows on the CPU: one row after the other, in a loop that Numba compiles.

It computes what gram.py does in batches: the Gram matrix of one row's ratings stays in the processor's cache from its
making to the draw.
"""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys.models.bayesian_mf.gram import Conditional, DeviceChunk
from recsys.runtime.compilation import LANE, compile_loop

Float32Array = npt.NDArray[np.float32]
_TOGETHER = 8  # ratings added to a Gram matrix at a time: it is read and written that much less often


def draw_rows(
    rows: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    others: npt.NDArray[np.int32],
    positions: npt.NDArray[np.int32],
    table: Float32Array,
    target: Float32Array,
    weights: Float32Array,
    inverse: Float32Array,
    pull: Float32Array,
    noise: Float32Array,
    before: Float32Array,
    overrelaxation: Float32Array,
    results: Float32Array,
    rest: Float32Array,
) -> None:
    """Writes the results of rows, and into `rest`, unless it is empty, the errors of their ratings.

    Args:
        rows: codes, (n,).
        lengths: ratings of each row, (n,).
        others: of each rating, a line of the table, (n, the largest length).
        positions: of each rating in the target, of the same shape.
        table: gram.make_table with the bias first, then the factors from the last to the first: as P = L'L is found
            from its last row, a draw is then that of gram.draw_factors. Zeros fill the width to a multiple of LANE.
        target: ratings.
        weights: precision of each row's ratings, for all rows.
        inverse: precision matrix of the prior, (d, d), in the table's order and width.
        pull: `inverse` times the mean of each row's prior, (all rows, d).
        noise: standard normal numbers, (all rows, d).
        before: the factors so far, (all rows, d).
        overrelaxation: of gram.overrelax, (1,).
        results: new factors, expected factors and gram.sum_errors, (all rows, 2 d + 6).
        rest: as the target.
    """
    d = noise.shape[1]
    width = table.shape[1] // LANE * LANE  # so that the compiler knows: no rest
    lines = np.zeros((_TOGETHER, width), np.float32)
    gram = np.zeros((width, width), np.float32)  # below the diagonal, as `lower`: what stands above is not read
    lower = np.zeros((width, width), np.float32)
    drawn, mean, image = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    for r in range(len(rows)):
        row = rows[r]
        gram[:] = 0
        for start in range(0, lengths[r], _TOGETHER):
            for k in range(_TOGETHER):
                if start + k < lengths[r]:
                    line = table[others[r, start + k]]
                    for j in range(width):
                        lines[k, j] = line[j]
                    lines[k, d] += target[positions[r, start + k]] * lines[k, 0]
                else:
                    lines[k] = 0
            for tile in range(width // LANE):
                stop = (tile + 1) * LANE
                for i in range(tile * LANE, stop):
                    a, b, c, e = lines[0, i], lines[1, i], lines[2, i], lines[3, i]
                    f, g, h, m = lines[4, i], lines[5, i], lines[6, i], lines[7, i]
                    for j in range(stop):
                        one = (a * lines[0, j] + b * lines[1, j]) + (c * lines[2, j] + e * lines[3, j])
                        two = (f * lines[4, j] + g * lines[5, j]) + (h * lines[6, j] + m * lines[7, j])
                        gram[i, j] += one + two

        weight = weights[row]
        for i in range(d):
            for j in range((i // LANE + 1) * LANE):
                lower[i, j] = weight * gram[i, j] + inverse[i, j]
            mean[i] = weight * gram[d, i] + pull[row, d - 1 - i]
        # The posterior's precision is P = L'L, with L below the diagonal, found from its last row upwards; `mean`
        # becomes L'^-1 of the right-hand side.
        for k in range(d - 1, -1, -1):
            by = np.float32(1) / np.sqrt(lower[k, k])
            for j in range((k // LANE + 1) * LANE):
                lower[k, j] *= by
            solved = mean[k] * by
            for j in range(k):
                mean[j] -= solved * lower[k, j]
            mean[k] = solved
            for i in range(k):
                by = lower[k, i]
                for j in range((i // LANE + 1) * LANE):
                    lower[i, j] -= by * lower[k, j]
        # The mean is L^-1 of that, and a draw L^-1 of that and the noise.
        for i in range(d):
            of_draw, of_mean = np.float32(0), np.float32(0)
            for j in range(i):
                of_draw += lower[i, j] * drawn[j]
                of_mean += lower[i, j] * mean[j]
            drawn[i] = (mean[i] + noise[row, d - 1 - i] - of_draw) / lower[i, i]
            mean[i] = (mean[i] - of_mean) / lower[i, i]
        over = overrelaxation[0]
        if over > 0:  # else a fresh draw stays as it is, to the last bit
            fresh = np.sqrt(np.float32(1) - over * over)
            for i in range(d):
                drawn[i] = mean[i] + fresh * (drawn[i] - mean[i]) - over * (before[row, d - 1 - i] - mean[i])
        drawn[d] = -1
        for j in range(d):
            results[row, d - 1 - j], results[row, 2 * d - 1 - j] = drawn[j], mean[j]

        # As gram.sum_errors: `image` is G'G times [factors, bias, -1].
        for i in range(d + 1):
            total = np.float32(0)
            for j in range(i):
                total += gram[i, j] * drawn[j]
                image[j] += gram[i, j] * drawn[i]
            image[i] = total + gram[i, i] * drawn[i]
        bias = drawn[0]
        errors, product_errors, products = np.float32(0), np.float32(0), np.float32(0)
        for j in range(d + 1):
            errors += drawn[j] * image[j]
        for j in range(1, d):
            product_errors += drawn[j] * image[j]
            products += drawn[j] * (image[j] - gram[j, 0] * bias + gram[d, j])
        of_bias, of_error = gram[0, 0] * bias, image[0]
        of_product = of_error - of_bias + gram[d, 0]
        sums = results[row, 2 * d :]
        sums[0], sums[1], sums[2] = errors, products, products - product_errors
        sums[3], sums[4], sums[5] = bias * of_bias, bias * (of_bias - of_error), bias * of_product

        if len(rest):
            for k in range(lengths[r]):
                line, position = table[others[r, k]], positions[r, k]
                error = target[position] * line[0]
                for j in range(width):
                    error -= line[j] * drawn[j]
                rest[position] = error


@functools.cache
def kernel() -> Callable[..., None]:
    """`draw_rows`, compiled."""
    codes, pairs = np.zeros(0, np.int64), np.zeros((0, 0), np.int32)
    numbers, table = np.zeros(0, np.float32), np.zeros((1, LANE), np.float32)
    tables = table, numbers, numbers, table, table, table, table, numbers, table, numbers
    return compile_loop(draw_rows, codes, codes, pairs, pairs, *tables)


def solver(conditional: Conditional) -> Callable[[DeviceChunk], None]:
    """What `gram.solver` gives, for chunks of a single block."""
    d = len(conditional.inverse)
    width = -(-(d + 1) // LANE) * LANE
    table = np.zeros((len(conditional.table), width), np.float32)
    table[:, :d], table[:, d] = conditional.table[:, :d].flip(1).numpy(), conditional.table[:, d].numpy()
    inverse = np.zeros((width, width), np.float32)
    inverse[:d, :d] = conditional.inverse.flip(0, 1).numpy()
    rest = np.zeros(0, np.float32) if conditional.rest is None else conditional.rest.numpy()
    target, weight = conditional.target.numpy(), conditional.weight.numpy()
    pull, noise = np.ascontiguousarray(conditional.pull.numpy()), conditional.noise.numpy()
    results, draw, counts = conditional.results.numpy(), kernel(), conditional.counts.numpy()

    over = np.array([conditional.overrelaxation], np.float32)
    tables = table, target, weight, inverse, pull, noise, conditional.before.numpy(), over

    def solve(chunk: DeviceChunk) -> None:
        rows = chunk.rows.numpy()
        lengths = counts[rows].astype(np.int64)
        draw(rows, lengths, chunk.others[0].numpy(), chunk.positions[0].numpy(), *tables, results, rest)

    return solve
