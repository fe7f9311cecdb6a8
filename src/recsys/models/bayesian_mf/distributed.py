"""A chain that the processes of a context compute together: collective operations, and checkpoints."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Array
from recsys.distributed.context import Context
from recsys.errors import StoppedError
from recsys.models.bayesian_mf.backend import Table
from recsys.models.bayesian_mf.checkpoint import COLUMNS, SECONDS, entry
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.posterior import Draw


class ContextCollective:
    """The collective operations of partition.py, over a context's group.

    Each is one step of the context's heartbeat, so that a process that hangs can be named. An array of NumPy becomes a
    tensor here, of the same memory, and what comes is an array again.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._steps = 0
        self.rank, self.size, self.device = context.group.rank, context.group.size, str(context.group.device)

    def gather(self, table: Table) -> Table:
        """The tables (n_r, ...) of all ranks, concatenated in order of rank."""
        self._beat(True)
        found = self.context.group.gather(torch.as_tensor(table))
        self._beat(False)
        return found.numpy() if isinstance(table, np.ndarray) else found

    def sum(self, table: Table) -> Table:
        """The sum over all ranks, in place."""
        self._beat(True)
        self.context.group.sum(torch.as_tensor(table))
        self._beat(False)
        return table

    def raise_if_stopped(self) -> None:
        """Raise StoppedError in all processes if any of them was told to stop."""
        self._beat(True)
        if self.context.group.agree(self.context.is_told_to_stop()):
            raise StoppedError
        self._beat(False)

    def _beat(self, waiting: bool) -> None:
        self._steps += not waiting
        self.context.beat(self._steps, waiting)


class ContextCheckpointer:
    """Saves a chain to the checkpoints of a context, as FileCheckpointer does to a file."""

    def __init__(self, collective: ContextCollective, most: int) -> None:
        """`most` is the largest number of draws: a checkpoint has room for all of them."""
        self._collective, self._most = collective, most
        self._checkpoints = collective.context.checkpoints
        self._stopping = False
        self._saved = time.monotonic()

    def load(self, chain: Chain) -> tuple[list[Draw], list[float]]:
        """Restore the chain from the newest checkpoint; returns the draws kept and the validation RMSE after each."""
        state = self._checkpoints.load(self._state(chain, [], []))
        if state is None:
            return [], []
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        chain.restore({name.removeprefix("chain_"): value for name, value in arrays.items() if "chain_" in name})
        kept = [
            Draw(**{name: entry(arrays[column], row) for name, column in COLUMNS.items()})
            for row in range(int(arrays["draws"]))
        ]
        return kept, arrays["rmse"][: int(arrays["measured"])].tolist()

    def is_due(self) -> bool:
        """Whether to save now, in all processes alike; also if any process was told to stop.

        A sweep is too short for a checkpoint of its own: if the setting asks for one an epoch, there is one every
        SECONDS.
        """
        try:
            self._collective.raise_if_stopped()
        except StoppedError:
            self._stopping = True
        group = self._collective.context.group
        late = group.agree(group.rank == 0 and time.monotonic() - self._saved >= SECONDS)
        return self._stopping or self._checkpoints.is_due(at_epoch_end=late)

    def save(self, chain: Chain, kept: Sequence[Draw], rmse: Sequence[float]) -> None:
        """Write a checkpoint; then raise StoppedError if any process was told to stop."""
        self._checkpoints.save(self._state(chain, kept, rmse))
        self._saved = time.monotonic()
        if self._stopping:
            raise StoppedError

    def _state(self, chain: Chain, kept: Sequence[Draw], rmse: Sequence[float]) -> dict[str, Tensor]:
        arrays: dict[str, Array] = {f"chain_{name}": value for name, value in chain.state().items()}
        present = chain.draw()
        for name, saved_name in COLUMNS.items():
            example = np.asarray(getattr(present, name))
            column = np.zeros((self._most, *example.shape), example.dtype)
            for row, draw in enumerate(kept):
                column[row] = getattr(draw, name)
            arrays[saved_name] = column
        curve = np.zeros(self._most)
        curve[: len(rmse)] = rmse
        numbers = {"draws": np.array(len(kept)), "measured": np.array(len(rmse))}
        # Arrays without a dimension come back without one only if they are copied.
        return {name: torch.from_numpy(np.array(value)) for name, value in (arrays | {"rmse": curve} | numbers).items()}
