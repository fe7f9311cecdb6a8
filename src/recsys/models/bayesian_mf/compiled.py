"""Draws of many rows on the CPU, in loops that Numba compiles.

It computes what gram.py does in batches. The Gram matrix of one row's ratings stays in the processor's registers while
it is summed. What follows from it is computed for LANE rows at once, one in each lane of the processor's vectors.
"""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk, fill_table
from recsys.runtime.compilation import LANE, TILE, compile_loop, part_of_loop
from recsys.runtime.lines import (
    add_products,
    add_products_half,
    scale,
    set_scaled,
    substitute,
    subtract_columns,
    subtract_products,
    subtract_scaled,
    transpose,
)

Float32Array = npt.NDArray[np.float32]
_TOGETHER = 64  # ratings whose lines are copied before they are summed: 8 KB for 30 factors
_ONE = np.float32(1)
# What the compiler learns the types of arguments from.
_CODES, _PAIRS = np.zeros(0, np.int64), np.zeros((0, 0), np.int32)
_NUMBERS, _TABLE = np.zeros(0, np.float32), np.zeros((1, LANE), np.float32)


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
        table: conditional.fill_table; zeros fill the width to a multiple of LANE.
        target: ratings.
        weights: precision of each row's ratings, for all rows.
        inverse: precision matrix of the prior, (d, d).
        pull: `inverse` times the mean of each row's prior, (all rows, d).
        noise: standard normal numbers, (all rows, d).
        before: the factors so far, (all rows, d).
        overrelaxation: of gram.overrelax, (1,).
        results: new factors, expected factors and gram.sum_errors, (all rows, 2 d + 6).
        rest: as the target.
    """
    d, width = noise.shape[1], table.shape[1]
    # A line more than a square: else all squares would begin at one place of the cache's.
    lines, squares = np.empty((_TOGETHER, width), np.float32), np.zeros((LANE, width + 1, width), np.float32)
    # Matrices of LANE rows: what is on and below the diagonal, column by column.
    gram = np.zeros(((d + 1) * (d + 2) // 2 + LANE, LANE), np.float32)  # the last lines are never read
    lower = np.empty_like(gram)
    weight, right, over = np.ones(LANE, np.float32), np.zeros((3, d + 1, LANE), np.float32), overrelaxation[0]
    drawn = np.empty((d + 1, LANE), np.float32)
    mean, image = np.empty_like(drawn), np.empty_like(drawn)
    sums = np.empty((6, LANE), np.float32)
    for first in range(0, len(rows), LANE):
        count = min(LANE, len(rows) - first)  # the lanes behind hold what was there before
        for lane in range(count):
            r, row = first + lane, rows[first + lane]
            _add_up(others[r, : lengths[r]], positions[r, : lengths[r]], table, target, lines, squares[lane], d)
            weight[lane] = weights[row]
            for j in range(d):
                right[0, j, lane], right[1, j, lane], right[2, j, lane] = pull[row, j], noise[row, j], before[row, j]
        _spread(squares, gram, d)
        _weigh(gram, weight, inverse, right[0], lower)
        _factorise(lower, d)
        _solve(lower, right[1], drawn, mean)
        if over > 0:  # else a fresh draw stays as it is, to the last bit
            fresh = np.sqrt(_ONE - over * over)
            for j in range(d):
                for lane in range(LANE):
                    away = right[2, j, lane] - mean[j, lane]
                    drawn[j, lane] = mean[j, lane] + fresh * (drawn[j, lane] - mean[j, lane]) - over * away
        _sum_errors(gram, drawn, image, sums)
        for lane in range(count):
            r, row = first + lane, rows[first + lane]
            for j in range(d):
                results[row, j], results[row, d + j] = drawn[j, lane], mean[j, lane]
            for j in range(6):
                results[row, 2 * d + j] = sums[j, lane]
            for k in range(lengths[r] if len(rest) else 0):
                line, position = table[others[r, k]], positions[r, k]
                error = target[position] * line[d - 1]
                for j in range(d + 1):
                    error -= line[j] * drawn[j, lane]
                rest[position] = error


@part_of_loop
def _add_up(others, positions, table, target, lines, square, d):  # type: ignore[no-untyped-def]
    """G'G of one row into `square`: the tiles that have something of the diagonal, or lie behind it."""
    square[:] = 0
    for start in range(0, len(others), _TOGETHER):
        count = min(_TOGETHER, len(others) - start)
        for k in range(count):
            line = table[others[start + k]]
            for j in range(table.shape[1] // LANE * LANE):  # so that the compiler knows: no rest
                lines[k, j] = line[j]
            lines[k, d] += target[positions[start + k]] * lines[k, d - 1]
        for i in range(0, d + 1, TILE):
            column = i // LANE * LANE
            if i - column >= LANE // 2:
                add_products_half(lines, count, i, column + LANE // 2, square)
                column += LANE
            for j in range(column, d + 1, LANE):
                add_products(lines, count, i, j, square)


@part_of_loop
def _spread(squares, gram, d):  # type: ignore[no-untyped-def]
    """The matrix of each row into its lane."""
    at, height, width = 0, squares.shape[1], squares.shape[2]
    for j in range(d + 1):
        for i in range(j, d + 1, LANE):  # what is written behind a column's end is written over by the next
            transpose(squares, j * width + i, height * width, gram, at + i - j)
        at += d + 1 - j


@part_of_loop
def _weigh(gram, weight, inverse, pull, lower):  # type: ignore[no-untyped-def]
    """The posterior's precision P, and below it the right-hand side."""
    at, d, less = 0, len(inverse), -weight.reshape((1, LANE))
    for j in range(d):
        for i in range(j, d):
            set_scaled(lower, at, inverse[i, j], weight, gram, at)
            at += 1
        lower[at] = pull[j]
        subtract_scaled(lower, at, less, 0, gram, at, 1)
        at += 1


@part_of_loop
def _factorise(lower, d):  # type: ignore[no-untyped-def]
    """P = L L' in place, and L^-1 times the right-hand side: one more row of the factor."""
    at, by = 0, np.empty(LANE, np.float32)
    for k in range(d):
        for lane in range(LANE):
            by[lane] = _ONE / np.sqrt(lower[at, lane])
        scale(lower, at, by, d + 1 - k)
        to = at + d + 1 - k
        last = k // 4 * 4 + 3  # of four columns that are subtracted from those behind them at once
        for j in range(k + 1, min(last + 1, d)):
            subtract_scaled(lower, to, lower, at + j - k, lower, at + j - k, d + 1 - j)
            to += d + 1 - j
        if k == last:
            first, second, third = at - 3 * (d + 1 - k) - 6, at - 2 * (d + 1 - k) - 3, at - (d + 1 - k) - 1
            for j in range(k + 1, d):
                on = j - k
                subtract_columns(lower, to, first + on + 3, second + on + 2, third + on + 1, at + on, d + 1 - j)
                to += d + 1 - j
        at += d + 1 - k


@part_of_loop
def _solve(lower, noise, drawn, mean):  # type: ignore[no-untyped-def]
    """The mean is L'^-1 of the factor's last row, and a draw L'^-1 of that and the noise."""
    d, at = len(drawn) - 1, (len(drawn) + 1) * len(drawn) // 2 - 1
    for j in range(d - 1, -1, -1):
        at -= d + 1 - j
        for lane in range(LANE):
            mean[j, lane] = lower[at + d - j, lane]
            drawn[j, lane] = mean[j, lane] + noise[j, lane]
        substitute(mean, drawn, j, lower, at + 1, d - 1 - j)
        for lane in range(LANE):
            mean[j, lane] /= lower[at, lane]
            drawn[j, lane] /= lower[at, lane]


@part_of_loop
def _sum_errors(gram, drawn, image, sums):  # type: ignore[no-untyped-def]
    """As gram.sum_errors: `image` is G'G times [factors, bias, -1]."""
    d, at = len(drawn) - 1, 0
    drawn[d] = -1
    image[:] = 0
    for j in range(d + 1):
        subtract_products(image, j, gram, at, drawn, j, d + 1 - j)
        subtract_scaled(image, j + 1, drawn, j, gram, at + 1, d - j)
        at += d + 1 - j
    for j in range(d + 1):
        for lane in range(LANE):
            image[j, lane] = -image[j, lane]
    sums[:3] = 0
    at = 0
    for j in range(d - 1):
        for lane in range(LANE):
            # The image of the product of the factors alone is without the last two columns of G'G.
            of_bias, of_rest = gram[at + d - 1 - j, lane], gram[at + d - j, lane]
            product = image[j, lane] - of_bias * drawn[d - 1, lane] + of_rest
            sums[0, lane] += drawn[j, lane] * image[j, lane]
            sums[1, lane] += drawn[j, lane] * product
            sums[2, lane] += drawn[j, lane] * (product - image[j, lane])
        at += d + 1 - j
    for lane in range(LANE):
        bias, of_bias, of_error = drawn[d - 1, lane], gram[at, lane] * drawn[d - 1, lane], image[d - 1, lane]
        of_product = of_error - of_bias + gram[at + 1, lane]
        sums[0, lane] += bias * of_error - image[d, lane]
        sums[3, lane] = bias * of_bias
        sums[4, lane] = bias * (of_bias - of_error)
        sums[5, lane] = bias * of_product


def sum_lines(
    rows: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    others: npt.NDArray[np.int32],
    table: Float32Array,
    total: Float32Array,
) -> None:
    """Sets rows of `total`, (all rows, r), to sums of lines of `table`, (n_other, r); the rest is as of draw_rows."""
    for r in range(len(rows)):
        line = total[rows[r]]
        line[:] = 0
        for k in range(lengths[r]):
            other = table[others[r, k]]
            for j in range(len(line)):
                line[j] += other[j]


def rate_pairs(
    users: Float32Array,
    items: Float32Array,
    user_codes: npt.NDArray[np.int32],
    item_codes: npt.NDArray[np.int32],
    ratings: Float32Array,
) -> None:
    """Writes the ratings, (n,), of pairs of users (n_users, d) and items (n_items, d), whose bias is last."""
    last = users.shape[1] - 1
    for k in range(len(ratings)):
        user, item = users[user_codes[k]], items[item_codes[k]]
        total = user[last] + item[last]
        for j in range(last):
            total += user[j] * item[j]
        ratings[k] = total


@functools.cache
def kernel() -> Callable[..., None]:
    """`draw_rows`, compiled."""
    tables = _TABLE, _NUMBERS, _NUMBERS, _TABLE, _TABLE, _TABLE, _TABLE, np.zeros(1, np.float32), _TABLE, _NUMBERS
    return compile_loop(draw_rows, _CODES, _CODES, _PAIRS, _PAIRS, *tables)


@functools.cache
def line_summer() -> Callable[..., None]:
    """`sum_lines`, compiled."""
    return compile_loop(sum_lines, _CODES, _CODES, _PAIRS, _TABLE, _TABLE)


@functools.cache
def pair_rater() -> Callable[..., None]:
    """`rate_pairs`, compiled."""
    return compile_loop(rate_pairs, _TABLE, _TABLE, _CODES.astype(np.int32), _CODES.astype(np.int32), _NUMBERS)


def solver(conditional: Conditional) -> Callable[[DeviceChunk], None]:
    """What `gram.solver` gives, for chunks of a single block."""
    n, d = conditional.others.shape
    table = np.zeros((n + 1, -(-(d + 1) // LANE) * LANE), np.float32)
    fill_table(table, conditional.others, conditional.other_precision)
    over = np.array([conditional.overrelaxation], np.float32)
    tables = table, conditional.target, conditional.weight, conditional.inverse, conditional.pull, conditional.noise
    rest = np.zeros(0, np.float32) if conditional.rest is None else conditional.rest
    draw = kernel()

    def solve(chunk: DeviceChunk) -> None:
        where = chunk.rows, chunk.lengths, chunk.others[0], chunk.positions[0]
        draw(*where, *tables, conditional.before, over, conditional.results, rest)

    return solve
