"""What a Gibbs chain needs of a context: exchanges that show where the process is, and a keeper of its state."""

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Array
from recsys.distributed.context import Context
from recsys.errors import StoppedError
from recsys.models.bayesian_mf.checkpoint import SECONDS
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.posterior import Sample


class Exchanges:
    """The exchanges of recsys.sharing over a context's group; each is a step that a hang can be named by."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._steps = 0
        self.rank, self.size, self.device = context.group.rank, context.group.size, context.group.device

    def gather(self, tensor: Tensor) -> Tensor:
        """The (n_r, ...) of every rank, concatenated by rank."""
        self._wait(True)
        found = self.context.group.gather(tensor)
        self._wait(False)
        return found

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        self._wait(True)
        total = self.context.group.sum(tensor)
        self._wait(False)
        return total

    def check(self) -> None:
        """End all processes where one of them was told to stop; raises StoppedError."""
        self._wait(True)
        if self.context.group.agree(self.context.is_told_to_stop()):
            raise StoppedError
        self._wait(False)

    def _wait(self, waiting: bool) -> None:
        self._steps += not waiting
        self.context.beat(self._steps, waiting)


class ContextKeeper:
    """Keeps a shared chain in the checkpoints of its context, as recsys.resuming.Keeper does in a file."""

    def __init__(self, exchanges: Exchanges, samples: int) -> None:
        """Say how many draws there will be at most: a checkpoint has room for all of them."""
        self._exchanges, self._samples = exchanges, samples
        self._checkpoints = exchanges.context.checkpoints
        self._stopping = False
        self._saved = time.monotonic()

    def load(self, chain: Chain) -> tuple[list[Sample], list[float]]:
        """Put the chain where the newest checkpoint has it; returns the draws kept and the RMSE after each."""
        state = self._checkpoints.load(self._state(chain, [], []))
        if state is None:
            return [], []
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        chain.restore({name.removeprefix("chain_"): value for name, value in arrays.items() if "chain_" in name})
        kept = [
            Sample(**{field.name: _entry(arrays[f"kept_{field.name}"][row]) for field in fields(Sample)})
            for row in range(int(arrays["draws"]))
        ]
        return kept, arrays["rmse"][: int(arrays["measured"])].tolist()

    def is_due(self) -> bool:
        """Whether to save now, which is also when any process was told to stop.

        A sweep is too short for a checkpoint each: where one an epoch is asked for, there is one every SECONDS.
        """
        try:
            self._exchanges.check()
        except StoppedError:
            self._stopping = True
        group = self._exchanges.context.group
        late = group.agree(group.rank == 0 and time.monotonic() - self._saved >= SECONDS)
        return self._stopping or self._checkpoints.is_due(at_epoch_end=late)

    def save(self, chain: Chain, kept: Sequence[Sample], rmse: Sequence[float]) -> None:
        """Write the state; raises StoppedError once it is written, where any process was told to stop."""
        self._checkpoints.save(self._state(chain, kept, rmse))
        self._saved = time.monotonic()
        if self._stopping:
            raise StoppedError

    def _state(self, chain: Chain, kept: Sequence[Sample], rmse: Sequence[float]) -> dict[str, Tensor]:
        arrays: dict[str, Array] = {f"chain_{name}": value for name, value in chain.state().items()}
        present = chain.sample()
        for field in fields(Sample):
            shape = np.asarray(getattr(present, field.name))
            column = np.zeros((self._samples, *shape.shape), shape.dtype)
            for row, draw in enumerate(kept):
                column[row] = getattr(draw, field.name)
            arrays[f"kept_{field.name}"] = column
        curve = np.zeros(self._samples)
        curve[: len(rmse)] = rmse
        numbers = {"draws": np.array(len(kept)), "measured": np.array(len(rmse))}
        # Arrays of no dimension come back as such only when they are copied.
        return {name: torch.from_numpy(np.array(value)) for name, value in (arrays | {"rmse": curve} | numbers).items()}


def _entry(value: Array) -> Any:
    """A row, or the number that it is."""
    return value if np.ndim(value) else float(value)
