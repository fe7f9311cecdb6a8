"""The operations of a chain in NumPy and compiled loops, on a CPU."""

import copy
from collections.abc import Callable

import numpy as np

from recsys.arrays import Array, Floats
from recsys.models.bayesian_mf import compiled
from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.models.bayesian_mf.generators import get_state, make_generator, set_state
from recsys.runtime.threads import Each, one_by_one

STREAMS = 16
"""Generators of random numbers for tables; more threads than that do not help."""
_SMALL = 1 << 14  # numbers, of a table


class NumpyBackend:
    """backend.Backend on a CPU."""

    device, xp = "cpu", np
    block, waste = 1 << 11, 1 << 11
    most_cells = 1 << 15  # of a chunk: there are then enough for several threads

    def cells(self, longest: int) -> int:
        """A row is never cut."""
        return max(self.most_cells, longest)

    def table(self, array: Array) -> Array:
        """The array itself."""
        return array

    def array(self, table: Array) -> Array:
        """The table itself."""
        return table

    def zeros(self, *shape: int) -> Array:
        """In float32."""
        return np.zeros(shape, np.float32)

    def contiguous(self, table: Array) -> Array:
        """A copy, unless the table is so."""
        return np.ascontiguousarray(table)

    def round_half(self, table: Array) -> Array:
        """By NumPy's conversion, which rounds to even."""
        return table.astype(np.float16).astype(np.float32)

    def column_sums(self, table: Array) -> Floats:
        """In float64 throughout."""
        return np.asarray(table.sum(0, dtype=np.float64))

    def sum_by(self, codes: Array, values: Array, n: int) -> Array:
        """Summed in float64."""
        return np.bincount(codes, weights=values, minlength=n).astype(np.float32)

    def add_lines(self, total: Array, chunk: DeviceChunk, table: Array) -> None:
        """By a compiled loop."""
        compiled.line_summer()(chunk.rows, chunk.lengths, chunk.others[0], table, total)

    def rate_pairs(self, users: Array, items: Array, user_codes: Array, item_codes: Array) -> Array:
        """By a compiled loop."""
        ratings = np.empty(len(user_codes), np.float32)
        compiled.pair_rater()(users, items, user_codes, item_codes, ratings)
        return ratings

    def solver(self, conditional: Conditional) -> Callable[[DeviceChunk], None]:
        """That of compiled.py."""
        return compiled.solver(conditional)

    def generator(self, seed: int) -> list[np.random.Generator]:
        """One for each of STREAMS blocks of a table's rows: threads share the work, and no number depends on them."""
        return [make_generator(child) for child in np.random.SeedSequence(seed).spawn(STREAMS)]

    def fork(self, generator: list[np.random.Generator]) -> list[np.random.Generator]:
        """A deep copy."""
        return copy.deepcopy(generator)

    def state(self, generator: list[np.random.Generator]) -> Array:
        """A line as of generators.py for each."""
        return np.array([get_state(one) for one in generator])

    def set_state(self, generator: list[np.random.Generator], state: Array) -> None:
        """From such lines."""
        for one, line in zip(generator, state, strict=True):
            set_state(one, line)

    def normal(self, generator: list[np.random.Generator], *shape: int, each: Each = one_by_one) -> Array:
        """In blocks of rows, which small tables are not worth waking threads for."""
        table = np.empty(shape, np.float32)
        ends = np.linspace(0, len(table), STREAMS + 1).astype(int).tolist()

        def fill(block: int) -> None:
            generator[block].standard_normal(dtype=np.float32, out=table[ends[block] : ends[block + 1]])

        (each if table.size > _SMALL else one_by_one)(fill, range(STREAMS))
        return table

    def gamma(self, generator: list[np.random.Generator], shape: Array) -> Array:
        """From the first of the generators."""
        return generator[0].standard_gamma(shape, dtype=np.float32)
