"""Matrix factorization in several processes by batches, for GPUs: each process learns from its share of every batch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recsys.data.interactions import Interactions
from recsys.distributed.context import Context
from recsys.models.matrix_factorization.batches import PaddedBatch, pad_batch
from recsys.models.matrix_factorization.data_parallel import DataParallelEngine
from recsys.models.matrix_factorization.factors import Float32Array
from recsys.models.matrix_factorization.network import Rows, to_rows
from recsys.models.matrix_factorization.row_sharded import RowShardedEngine
from recsys.models.matrix_factorization.sampler import DistributedBatches
from recsys.models.matrix_factorization.sgd import PREDICTION_CHUNK, copy_tensors
from recsys.models.matrix_factorization.training import Problem


class BatchLearner:
    """The training of `sgd.fit_factors`, to the same numbers but for the order of sums. A step is a batch."""

    rows: Rows
    batch: PaddedBatch

    def __init__(self, context: Context, problem: Problem) -> None:
        assert isinstance(problem.rows, Interactions)
        self.group, self.problem = context.group, problem
        self.train = replace(problem.rows, timestamps=None)  # not used: would be read from disk in vain
        engine = RowShardedEngine if context.sharding == "row" else DataParallelEngine
        self.engine = engine(self.group, problem.sizes, problem.config, self.train)
        self.batches = DistributedBatches(len(self.train), problem.config.batch_size, self.group, problem.seed)
        self.steps = self.batches.n_batches
        self.best: list[Tensor] = []
        if problem.validation is not None:
            self.best = [torch.empty_like(parameter.detach()) for parameter in self.engine.network.parameters()]
            # Each process predicts its share: equally many, the last of which stand for nothing.
            n_rows = len(problem.validation)
            share = -(-n_rows // self.group.size)
            own = self._rows(problem.validation[self.group.rank * share : (self.group.rank + 1) * share], unknown=True)
            self.held_out = pad_batch(own, slice(None), share, n_rows, problem.sizes)

    def initialize(self) -> None:
        """Fills the tables with initial values."""
        self.engine.initialize(self.problem.seed)

    def begin_epoch(self, number: int, learning_rate: float, step: int) -> None:
        """Have this process's rows of an epoch in its order."""
        self.engine.set_learning_rate(learning_rate, len(self.train))
        self.rows = self._rows(self.train[self.batches.epoch_rows(number)], unknown=False)

    def after(self, step: int) -> int:
        """The next step: none is taken without a word to others."""
        return step + 1

    def is_summed(self, step: int) -> bool:
        """After each."""
        return True

    def prepare(self, step: int) -> None:
        """Take this process's rows of a batch."""
        part, length = self.batches.batch_slice(step), self.batches.largest_share(step)
        self.batch = pad_batch(self.rows, part, length, self.batches.rows_of_batch(step), self.engine.sizes)

    def step(self, step: int) -> Tensor:
        """Takes one step; gives the sum of square errors of this process's rows, (1, 1), from before it."""
        return self.engine.step(self.batch).double().reshape(1, 1)

    def exchange(self, step: int) -> None:
        """Nothing: a step has sent what the next one needs."""

    def predict_all(self) -> Float32Array | None:
        """Standardised ratings of the validation rows, (n,), in rank 0."""
        users, items = self.held_out.users, self.held_out.items
        parts = (slice(start, start + PREDICTION_CHUNK) for start in range(0, len(users), PREDICTION_CHUNK))
        predicted = torch.cat([self.engine.predict(users[part], items[part]) for part in parts])
        predicted = self.group.gather_even(predicted)[: self.held_out.n_rows]
        found: Float32Array = predicted.cpu().numpy()
        return None if self.group.rank else found

    def keep(self) -> None:
        """Keeps the tables as they are now: the best so far."""
        copy_tensors(self.engine.network.parameters(), self.best)

    def restore(self) -> None:
        """Goes back to the tables that were kept."""
        copy_tensors(self.best, self.engine.network.parameters())

    def state(self) -> dict[str, Any]:
        """Tables and what was kept of them."""
        names = [name for name, _ in self.engine.network.named_parameters()]
        labels = [f"{use}.{name}" for use in ("network", "best")[: 1 + bool(self.best)] for name in names]
        tables: list[Tensor] = [*(p.detach() for p in self.engine.network.parameters()), *self.best]
        return dict(zip(labels, tables, strict=True))

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Nothing: the state's tensors are the tables."""

    def arrays(self) -> dict[str, Float32Array]:
        """The arrays of `Factors`; of split tables in rank 0 only."""
        return self.engine.gather_arrays(self.problem.unit[1])

    def _rows(self, rows: Interactions, *, unknown: bool) -> Rows:
        return to_rows(rows, *self.problem.unit, self.problem.sizes, self.group.device, unknown=unknown)
