"""The operations of a chain in PyTorch, on a GPU; tests have it compute on a CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recsys.arrays import Array, Floats
from recsys.models.bayesian_mf import gram
from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.runtime.threads import Each, one_by_one


class TorchBackend:
    """backend.Backend on a device of PyTorch."""

    xp: Any = torch
    block, waste = 1 << 20, 1 << 17
    most_cells = 1 << 20

    def __init__(self, device: str) -> None:
        self.device = device

    def cells(self, longest: int) -> int:
        """A longer row is cut into segments."""
        return self.most_cells

    def table(self, array: Array) -> Tensor:
        """A copy, but on a CPU."""
        return torch.from_numpy(array).to(self.device)

    def array(self, table: Tensor) -> Array:
        """A copy, but on a CPU."""
        return np.asarray(table.cpu().numpy())

    def zeros(self, *shape: int) -> Tensor:
        """In float32."""
        return torch.zeros(shape, device=self.device)

    def contiguous(self, table: Tensor) -> Tensor:
        """A copy, unless the tensor is so."""
        return table.contiguous()

    def round_half(self, table: Tensor) -> Tensor:
        """On the device."""
        return table.half().float()

    def column_sums(self, table: Tensor) -> Floats:
        """In float64 throughout."""
        return self.array(table.sum(0, dtype=torch.float64))

    def sum_by(self, codes: Tensor, values: Tensor, n: int) -> Tensor:
        """In float32."""
        return self.zeros(n).index_add_(0, codes, values)

    def add_lines(self, total: Tensor, chunk: DeviceChunk, table: Tensor) -> None:
        """Block by block, with a line of zeros for the padding."""
        padded = torch.cat((table, table.new_zeros(1, table.shape[1])))
        total[chunk.rows] = sum(embedding_bag(others, padded, mode="sum") for others in chunk.others)

    def rate_pairs(self, users: Tensor, items: Tensor, user_codes: Tensor, item_codes: Tensor) -> Tensor:
        """Of gathered rows."""
        own, others = users[user_codes], items[item_codes]
        product = own * others
        product[:, -1] = own[:, -1] + others[:, -1]
        return product.sum(1)

    def solver(self, conditional: Conditional) -> Callable[[DeviceChunk], None]:
        """That of gram.py."""
        return gram.solver(conditional)

    def generator(self, seed: int) -> torch.Generator:
        """One of the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def fork(self, generator: torch.Generator) -> torch.Generator:
        """One with its state."""
        return torch.Generator(generator.device).set_state(generator.get_state())

    def state(self, generator: torch.Generator) -> Array:
        """In bytes."""
        return np.asarray(generator.get_state().numpy())

    def set_state(self, generator: torch.Generator, state: Array) -> None:
        """From such bytes."""
        generator.set_state(torch.from_numpy(state))

    def normal(self, generator: torch.Generator, *shape: int, each: Each = one_by_one) -> Tensor:
        """On the device, at once."""
        return torch.randn(shape, generator=generator, device=self.device)

    def gamma(self, generator: torch.Generator, shape: Tensor) -> Tensor:
        """In float32."""
        return torch._standard_gamma(shape, generator=generator)
