"""The CPU's engine in several processes: each has its blocks of users, and the blocks of items come by.

Nothing else is sent: what is exchanged in an epoch depends on the items, and not on the ratings. Turns that need the
same blocks of items are taken without a word to others: with two processes, half an epoch (grid.py).
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from recsys.distributed.context import Context
from recsys.models.matrix_factorization.cells import Turns
from recsys.models.matrix_factorization.compiled import CompiledEngine, HeldOut, Side, export_arrays
from recsys.models.matrix_factorization.factors import ARRAYS, Float32Array
from recsys.models.matrix_factorization.grid import BLOCKS, Int64Array, share
from recsys.models.matrix_factorization.training import Problem

TABLES = "user_factors", "user_scalars", "item_factors", "item_scalars"
SILENT_ROWS = 1 << 23  # most rows of a process between two sums, about a second: who is told to stop says so then
SENT = 1 << 24  # most bytes of a message, if a block has fewer: sent and received at once, beside the tables


class BlockExchange(CompiledEngine):
    """This process's blocks of users, and as many blocks of items. A step is a turn (grid.py).

    What is not `prepare`, `learn`, `step`, `keep`, `restore` or `take` is one collective.
    """

    steps = BLOCKS

    def __init__(self, context: Context, problem: Problem) -> None:
        self.context, self.group = context, context.group
        self.shares, stride = share(range(BLOCKS), self.group.size)
        self.owner = np.repeat(np.arange(self.group.size), [len(blocks) for blocks in self.shares])
        super().__init__(problem, self.shares[self.group.rank])
        self.stride, self.summed = stride, BLOCKS  # turns after which square errors are summed
        while self.summed > 1 and self.source.n_rows * self.summed > SILENT_ROWS * BLOCKS * self.group.size:
            self.summed //= 2
        self.silence = min(stride, self.summed)
        self._be_sorted(0)
        self.mesh = self.group.mesh() if context.sharding == "row" else None
        self.kept_shift = 0
        self.turns: dict[int, tuple[Int64Array, Turns]] = {}  # of an epoch, by the first of those taken at once
        self.made: dict[int, dict[int, tuple[Int64Array, Turns]]] = {}  # those of an epoch to come, by its number
        self.epoch = 0
        if problem.validation is not None:
            self.keep()
            if self.group.rank == 0:  # which of the validation rows all processes' predictions are of, by rank
                self.predicted = np.concatenate([HeldOut(problem, some, self.grid).rows for some in self.shares])

    def begin_epoch(self, number: int, learning_rate: float, step: int) -> None:
        """Be ready for a step of an epoch."""
        self.turns = self.made.pop(number, {}) or self._turns(number, step)
        self.epoch, self.learning_rate = number, learning_rate
        self._bring_for(step)

    def after(self, step: int) -> int:
        """The step before which processes speak again."""
        return step + len(self.turns[step][0])

    def is_summed(self, step: int) -> bool:
        """Whether square errors are summed after those turns: not always where blocks are exchanged."""
        return self.after(step) % self.summed == 0 or self.after(step) == self.steps

    def prepare(self, step: int) -> None:
        """Learn from this process's rows, without a word to others."""
        self.totals = self.learn(step, *self.turns[step], self.learning_rate)

    def step(self, step: int) -> Tensor:
        """The square errors of each turn and block of users, (turns, BLOCKS), 0 of others'."""
        squares = torch.zeros(len(self.totals), BLOCKS, dtype=torch.float64)
        squares[:, self.own.start : self.own.stop] = torch.from_numpy(self.totals)
        return squares

    def exchange(self, step: int) -> None:
        """Have the blocks of items that the next turns need; at an epoch's end, while others add up, the next order."""
        if self.after(step) < self.steps:
            self._bring_for(self.after(step))
        else:
            self.made[self.epoch + 1] = self._turns(self.epoch + 1, 0)

    def bring(self, shift: int) -> None:
        """Send the blocks of items that others are to meet, and receive those that are to be met here."""
        here, others = self.group.rank, [rank for rank in range(self.group.size) if rank != self.group.rank]
        is_at, goes_to = (self.owner[np.arange(BLOCKS) ^ of_turn] for of_turn in (self.shift, shift))
        outgoing = {rank: self._messages((is_at == here) & (goes_to == rank)) for rank in others}
        incoming = {rank: self._messages((is_at == rank) & (goes_to == here)) for rank in others}
        free: list[int] = []
        arrived: list[tuple[int, Float32Array]] = []
        for number in range(max(map(len, [*outgoing.values(), *incoming.values()]), default=0)):
            sent, received = (
                {rank: messages[number] for rank, messages in of_rank.items() if number < len(messages)}
                for of_rank in (outgoing, incoming)
            )
            room = {rank: torch.empty(len(some), self._width) for rank, some in received.items()}
            self.group.exchange({rank: torch.from_numpy(self._pack(some)) for rank, some in sent.items()}, room)
            gone = [block for some in sent.values() for block in some]
            free += self.where[gone].tolist()
            self.where[gone] = -1
            for rank, some in received.items():
                arrived += zip(some, room[rank].numpy(), strict=True)
            while arrived and free:
                self._put(*arrived.pop(), free.pop())
        super().bring(shift)

    def _turns(self, epoch: int, step: int) -> dict[int, tuple[Int64Array, Turns]]:
        return {first: (shifts, turns) for first, shifts, turns in self.source.turns(epoch, self.silence, step)}

    def _bring_for(self, step: int) -> None:
        if step < self.steps:
            self.bring(int(self.turns[step][0][0]))

    def _messages(self, chosen: npt.NDArray[np.bool_]) -> list[list[int]]:
        """The chosen blocks of items, so many to a message."""
        blocks, at_once = np.flatnonzero(chosen).tolist(), max(1, SENT // (4 * self._width))
        return [blocks[at : at + at_once] for at in range(0, len(blocks), at_once)]

    @property
    def _width(self) -> int:
        """Numbers of a block of items."""
        return sum(math.prod(table.shape[1:]) for table in (self.items.factors, self.items.scalars))

    def _pack(self, blocks: list[int]) -> Float32Array:
        places = self.where[blocks]
        parts = [table[places].reshape(len(blocks), -1) for table in (self.items.factors, self.items.scalars)]
        return np.concatenate(parts, axis=1)

    def _put(self, block: int, content: Float32Array, place: int) -> None:
        self.where[block] = place
        factors, scalars = self.items.factors[place], self.items.scalars[place]
        factors[:] = content[: factors.size].reshape(factors.shape)
        scalars[:] = content[factors.size :].reshape(scalars.shape)

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
        for side, shift in ((self.users, 0), (self.items, self.shift)):
            factors, scalars = (self._collect(table) for table in (side.factors, side.scalars))
            if shift and not self.group.rank:
                met = np.arange(BLOCKS) ^ shift
                factors, scalars = factors[met], scalars[met]
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
        """Have each block of items where the block of users is that it meets in a turn of `shift`."""
        places = self.places(np.array([self.shift]))[0]
        if (places != np.arange(len(places))).any():
            for table in (self.items.factors, self.items.scalars):
                table[:] = table[places]
        self._be_sorted(self.shift)

    def _be_sorted(self, shift: int) -> None:
        self.shift = shift
        self.where[:] = -1
        self.where[np.arange(self.own.start, self.own.stop) ^ shift] = np.arange(len(self.own))
