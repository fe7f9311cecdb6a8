"""The operations of a chain in NumPy and compiled loops, on a CPU."""

import copy
from collections.abc import Callable

import numpy as np

from recsys.arrays import Array, Floats
from recsys.models.bayesian_mf import compiled
from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.models.bayesian_mf.generators import get_state, make_generator, set_state


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

    def generator(self, seed: int) -> np.random.Generator:
        """As for small matrices."""
        return make_generator(seed)

    def fork(self, generator: np.random.Generator) -> np.random.Generator:
        """A deep copy."""
        return copy.deepcopy(generator)

    def state(self, generator: np.random.Generator) -> Array:
        """As generators.py says."""
        return get_state(generator)

    def set_state(self, generator: np.random.Generator, state: Array) -> None:
        """As generators.py says."""
        set_state(generator, state)

    def normal(self, generator: np.random.Generator, *shape: int) -> Array:
        """In float32."""
        return generator.standard_normal(shape, np.float32)

    def gamma(self, generator: np.random.Generator, shape: Array) -> Array:
        """In float32."""
        return generator.standard_gamma(shape, dtype=np.float32)
