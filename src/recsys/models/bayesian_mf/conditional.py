"""What the rows of an entity are drawn from, given the other entity; the same for both backends."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class DeviceChunk:
    """A padding.Chunk as tables on the device. `positions` and `others` have one (rows, length) table a block."""

    rows: Any  # (rows,) codes
    lengths: Any  # (rows,) ratings of each row
    positions: tuple[Any, ...]  # of each rating in the target
    others: tuple[Any, ...]  # the other entity of each rating, a row of `make_table`; the last row is padding


@dataclass(frozen=True, eq=False)
class Conditional:
    """What the distribution of an entity's n rows depends on, given the other entity, and where the draws go."""

    others: Any  # (n_other, d) factors of the other entity
    other_precision: Any  # (n_other,) its precisions
    target: Any  # (number of ratings + 1,)
    weight: Any  # (n,) precision of each row's ratings
    inverse: Any  # (d, d) precision matrix of the prior
    pull: Any  # (n, d) `inverse` times the mean of each row's prior
    noise: Any  # (n, d) standard normal numbers
    before: Any  # (n, d) the factors so far
    overrelaxation: float  # from 0 to 1, of gram.overrelax
    results: Any  # (n, 2 d + 6) new factors, expected factors and gram.sum_errors
    rest: Any | None  # the error of each rating, where it is wanted


def fill_table(table: Any, factors: Any, precision: Any) -> Any:
    """The lines [factors, 1, -bias] of an entity, each times the root of its precision; `table` itself.

    Args:
        table: zeros, (n + 1, at least d + 1). The last line stays zero: it is the padding.
        factors: shape (n, d), the bias last.
        precision: shape (n,).
    """
    n, d = factors.shape
    table[:n, : d - 1] = factors[:, : d - 1]
    table[:n, d - 1] = 1
    table[:n, d] = -factors[:, d - 1]
    table[:n] *= precision[:, None] ** 0.5
    return table
