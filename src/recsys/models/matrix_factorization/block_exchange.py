"""The CPU's engine in several processes: each has its blocks of users, and the blocks of items come by.

Nothing else is sent: what is exchanged in an epoch depends on the items, and not on the ratings.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from recsys.distributed.context import Context
from recsys.models.matrix_factorization.compiled import CompiledEngine, HeldOut, Side, export_arrays
from recsys.models.matrix_factorization.factors import ARRAYS, Float32Array
from recsys.models.matrix_factorization.grid import BLOCKS, Turn
from recsys.models.matrix_factorization.training import Problem

TABLES = "user_factors", "user_scalars", "item_factors", "item_scalars"


class BlockExchange(CompiledEngine):
    """This process's blocks of users, and as many blocks of items. A step is a turn (grid.py).

    What is not `prepare`, `learn`, `step`, `keep`, `restore` or `take` is one collective.
    """

    steps = BLOCKS

    def __init__(self, context: Context, problem: Problem) -> None:
        self.context, self.group = context, context.group
        self.shares = [_share(rank, self.group.size) for rank in range(self.group.size)]
        self.owner = np.repeat(np.arange(self.group.size), [len(share) for share in self.shares])
        super().__init__(problem, self.shares[self.group.rank])
        self._be_sorted(0)
        self.mesh = self.group.mesh() if context.sharding == "row" else None
        self.kept_shift = 0
        self.turns: list[tuple[int, Turn]] = []
        if problem.validation is not None:
            self.keep()
            if self.group.rank == 0:  # which of the validation rows all processes' predictions are of, by rank
                self.predicted = np.concatenate([HeldOut(problem, share, self.grid).rows for share in self.shares])

    def begin_epoch(self, number: int, learning_rate: float, step: int) -> None:
        """Be ready for a step of an epoch."""
        self.turns, self.learning_rate = list(self.source.turns(number)), learning_rate
        self.bring(self.turns[step][0])

    def prepare(self, step: int) -> None:
        """Learn from this process's rows of a turn, without a word to others."""
        self.totals = self.learn(self.turns[step][1], self.learning_rate)

    def step(self, step: int) -> Tensor:
        """The square errors of each block of users, (BLOCKS,), 0 of others'."""
        squares = torch.zeros(BLOCKS, dtype=torch.float64)
        squares[self.own.start : self.own.stop] = torch.from_numpy(self.totals)
        return squares

    def exchange(self, step: int) -> None:
        """Have the blocks of items that the next turn needs."""
        if step + 1 < self.steps:
            self.bring(self.turns[step + 1][0])

    def bring(self, shift: int) -> None:
        """Send the blocks of items that others are to meet, and receive those that are to be met here."""
        after = (np.arange(BLOCKS) - shift) % BLOCKS  # the block of users that each block of items is to meet
        goes_to, is_at = self.owner[after], self.owner[(np.arange(BLOCKS) - self.shift) % BLOCKS]
        outgoing: dict[int, list[int]] = defaultdict(list)
        incoming: dict[int, list[int]] = defaultdict(list)
        for block in np.flatnonzero(goes_to != is_at).tolist():
            if is_at[block] == self.group.rank:
                outgoing[int(goes_to[block])].append(block)
            elif goes_to[block] == self.group.rank:
                incoming[int(is_at[block])].append(block)
        sent = {rank: torch.from_numpy(self._pack(blocks)) for rank, blocks in outgoing.items()}
        room = {rank: torch.empty(len(blocks), self._width) for rank, blocks in incoming.items()}
        self.group.exchange(sent, room)
        free = [int(self.where[block]) for blocks in outgoing.values() for block in blocks]
        for blocks in outgoing.values():
            self.where[blocks] = -1
        for rank, blocks in incoming.items():
            for block, content in zip(blocks, room[rank].numpy(), strict=True):
                self.where[block] = place = free.pop()
                factors, scalars = self.items.factors[place], self.items.scalars[place]
                factors[:] = content[: factors.size].reshape(factors.shape)
                scalars[:] = content[factors.size :].reshape(scalars.shape)
        super().bring(shift)

    @property
    def _width(self) -> int:
        return self.items.factors[:1].size + self.items.scalars[:1].size

    def _pack(self, blocks: list[int]) -> Float32Array:
        places = self.where[blocks]
        parts = [table[places].reshape(len(blocks), -1) for table in (self.items.factors, self.items.scalars)]
        return np.concatenate(parts, axis=1)

    def predict_all(self) -> Float32Array | None:
        """Standardised ratings of the validation rows, (n,), in rank 0."""
        predicted = self.group.gather(torch.from_numpy(self.predict_own())).numpy()
        if self.group.rank:
            return None
        found = np.empty_like(predicted)
        found[self.predicted] = predicted
        return found

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""
        self._sort_items()
        super().keep()
        self.kept_shift = self.shift

    def restore(self) -> None:
        """Goes back to the tables that were kept."""
        super().restore()
        self._be_sorted(self.kept_shift)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on: of split tables this process's part, else all blocks, copied."""
        self._sort_items()
        shifts = torch.tensor([self.shift, self.kept_shift])
        return {name: self._of_all_blocks(table) for name, table in self._named()} | {"shifts": shifts}

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that was read into what `state` gave."""
        for name, table in self._named():
            if not isinstance(state[name], DTensor):  # whose memory is the table's own
                table[:] = state[name].numpy()[self.own.start : self.own.stop]
        shift, self.kept_shift = state["shifts"].tolist()
        self._be_sorted(shift)

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors` in rank 0, and arrays without rows elsewhere."""
        self._sort_items()
        sides = []
        for side, turned in ((self.users, 0), (self.items, self.shift)):
            factors, scalars = (np.roll(self._collect(table), turned, axis=0) for table in (side.factors, side.scalars))
            sides.append(Side(factors, scalars, self._collect(side.counts)))
        if self.group.rank:
            none, width = np.zeros(0, np.float32), self.problem.config.embedding_size
            return {name: none.reshape(0, width) if name.endswith("factors") else none for name in ARRAYS}
        return export_arrays(self.problem, self.grid, *sides)

    def of_all(self, number: int) -> int:
        """The sum of what each process has."""
        return int(self.group.sum(torch.tensor(number)))

    def _collect(self, table: Float32Array) -> Float32Array:
        """The blocks of all processes in rank 0, none elsewhere."""
        return self.group.collect(torch.from_numpy(table))

    def _named(self) -> list[tuple[str, Float32Array]]:
        tables = [*zip(TABLES, self.tables, strict=True)]
        return tables + [(f"best.{name}", kept) for name, kept in zip(TABLES, self.kept, strict=False)]

    def _of_all_blocks(self, table: Float32Array) -> Tensor:
        here, shape = torch.from_numpy(table), torch.Size((BLOCKS, *table.shape[1:]))
        if self.mesh is None:
            return self.group.gather(here).clone()
        strides = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(here, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=strides)

    def _sort_items(self) -> None:
        """Have each block of items where the block of users is that it meets."""
        places = self.places
        for table in (self.items.factors, self.items.scalars):
            table[:] = table[places]
        self._be_sorted(self.shift)

    def _be_sorted(self, shift: int) -> None:
        self.shift = shift
        self.where[:] = -1
        self.where[(np.arange(self.own.start, self.own.stop) + shift) % BLOCKS] = np.arange(len(self.own))


def _share(rank: int, size: int) -> range:
    """The blocks of a rank: as DTensor has it, equally many until none is left."""
    most = -(-BLOCKS // size)
    return range(min(BLOCKS, rank * most), min(BLOCKS, (rank + 1) * most))
