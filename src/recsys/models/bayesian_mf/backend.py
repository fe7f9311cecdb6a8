"""Where a chain computes: NumPy and compiled loops on a CPU, PyTorch on a GPU.

A chain is written once. Its tables (of users, items, sessions and ratings; float32) are arrays of NumPy, or tensors of
PyTorch, and what is written alike for both stands in the chain: operators, indices, sums, `xp.log`. A backend names the
handful of operations that are not. Small matrices are arrays of NumPy in float64, and random numbers for them come from
a generator of NumPy, whatever the backend.
"""

from collections.abc import Callable
from typing import Any, Protocol

from recsys.arrays import Array, Floats
from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.runtime.threads import Each, one_by_one

Table = Any
"""A NumPy array, or a PyTorch tensor on the device of the backend."""


class Backend(Protocol):
    """What differs between NumPy and PyTorch."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `cuda:0`."""

    @property
    def xp(self) -> Any:
        """`numpy` or `torch`: for functions that have one name and one order of arguments in both."""

    @property
    def block(self) -> int:
        """Rows of a table that one thread multiplies at a time."""

    @property
    def waste(self) -> int:
        """Padded cells that any chunk of ratings may have."""

    def cells(self, longest: int) -> int:
        """The largest number of ratings in a block of a chunk, where the longest row has so many."""

    def table(self, array: Array) -> Table:
        """The array on the device; it may share the memory."""

    def array(self, table: Table) -> Array:
        """A table as an array of NumPy; it may share the memory."""

    def zeros(self, *shape: int) -> Table:
        """A table of 0, in float32."""

    def contiguous(self, table: Table) -> Table:
        """The same numbers, row by row without gaps."""

    def round_half(self, table: Table) -> Table:
        """The numbers rounded to float16, in float32."""

    def column_sums(self, table: Table) -> Floats:
        """Sums over the rows, (columns,), in float64."""

    def sum_by(self, codes: Table, values: Table, n: int) -> Table:
        """For each code below n, the sum of its values: (n,)."""

    def add_lines(self, total: Table, chunk: DeviceChunk, table: Table) -> None:
        """Sets the chunk's rows of `total` to the sums of those lines of a table that the others of the row name."""

    def rate_pairs(self, users: Table, items: Table, user_codes: Table, item_codes: Table) -> Table:
        """Standardised ratings of pairs, (n,), by tables of factors with the bias last."""

    def solver(self, conditional: Conditional) -> Callable[[DeviceChunk], None]:
        """A function that draws the rows of a chunk."""

    def generator(self, seed: int) -> Any:
        """A generator of random numbers on the device."""

    def fork(self, generator: Any) -> Any:
        """Another generator with the same numbers to come."""

    def state(self, generator: Any) -> Array:
        """The state of a generator."""

    def set_state(self, generator: Any, state: Array) -> None:
        """Have the generator go on from a state."""

    def normal(self, generator: Any, *shape: int, each: Each = one_by_one) -> Table:
        """Standard normal numbers, in float32; `each` may share the work among threads."""

    def gamma(self, generator: Any, shape: Table) -> Table:
        """Gamma variates of the rate 1, one for each shape."""


def find_backend(device: str) -> Backend:
    """That of a device: PyTorch takes seconds and 0.2 GB to import, and is for GPUs only."""
    if device == "cpu":
        from recsys.models.bayesian_mf.numpy_backend import NumpyBackend

        return NumpyBackend()
    from recsys.models.bayesian_mf.torch_backend import TorchBackend

    return TorchBackend(device)
