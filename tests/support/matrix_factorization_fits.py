"""Small trainings of matrix factorization in the processes of a group, and the ratings that they learn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recsys.data.interactions import Interactions
from recsys.distributed.checkpoints import Checkpoints
from recsys.distributed.context import Context, Sharding
from recsys.distributed.process_group import Group
from recsys.errors import StoppedError
from recsys.models.matrix_factorization import block_exchange, network
from recsys.models.matrix_factorization.batch_learner import BatchLearner
from recsys.models.matrix_factorization.batches import pad_batch
from recsys.models.matrix_factorization.block_exchange import BlockExchange
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.data_parallel import DataParallelEngine
from recsys.models.matrix_factorization.distributed import fit_factors_distributed
from recsys.models.matrix_factorization.network import to_rows
from recsys.models.matrix_factorization.row_sharded import RowShardedEngine
from recsys.models.matrix_factorization.sampler import DistributedBatches
from recsys.models.matrix_factorization.training import Problem

N_USERS, N_ITEMS = 61, 43  # neither table, with its row of zeros, splits evenly over three or four
# 1 rating in the last batch, which most processes see nothing of; no number of processes divides the others evenly.
SETTINGS = {
    "embedding_size": 5,
    "learning_rate": 0.5,
    "regularization": 0.03,
    "batch_size": 251,
    "epochs": 9,
    "patience": 3,
}
SEED = 3
FEW = {"epochs": 2, "batch_size": 2}  # for 3 rows: some of four processes see none
HASTY = {"patience": 1, "regularization": 0.0}  # for 60 rows: an epoch is soon worse than the one before
N_TRAIN = 4 * 251 + 1
SHARDINGS: tuple[Sharding, ...] = ("none", "row")
LEARNERS = {"blocks": BlockExchange, "batches": BatchLearner}  # of CPUs, of GPUs


def planted() -> tuple[Interactions, Interactions]:
    """Rows to train on and to validate on; user 7 is rated once, user 9 and item 4 never; some ids are unknown."""
    random = np.random.default_rng(0)
    pairs = random.choice(N_USERS * N_ITEMS, N_TRAIN + 403, replace=False)
    users, items = pairs // N_ITEMS, pairs % N_ITEMS
    users[:N_TRAIN][np.isin(users[:N_TRAIN], (7, 9))] = 8
    users[5] = 7
    items[:N_TRAIN][items[:N_TRAIN] == 4] = 3
    p, q = random.normal(size=(N_USERS, 3)), random.normal(size=(N_ITEMS, 3))
    ratings = (
        3 + random.normal(size=N_USERS)[users] + (p[users] * q[items]).sum(1) + 0.3 * random.normal(size=len(users))
    )
    held_out = [column[N_TRAIN:].copy() for column in (users, items, ratings)]
    held_out[0][::20] = held_out[1][::31] = -1
    return Interactions(users[:N_TRAIN], items[:N_TRAIN], ratings[:N_TRAIN]), Interactions(*held_out)


def learn(
    group: Group,
    folder: Path,
    sharding: Sharding,
    learner: str,
    *,
    every_seconds: float = 0,
    stop: Callable[[int], bool] = lambda step: False,
    rows: Interactions | None = None,
    validated: bool = True,
    summed: Literal["each epoch", "each exchange"] = "each exchange",
    **given: Any,
) -> dict[str, Any]:
    """A training as plain values; `stop(step)` in any process is its being told to stop after that step."""
    block_exchange.SILENT_ROWS = 1 << 23 if summed == "each epoch" else -(-N_TRAIN // group.size**2)
    steps: list[int] = [-1]
    checkpoints = Checkpoints(folder, "digest", group, every_seconds)
    context = Context(group, checkpoints, sharding, lambda: stop(steps[-1]), lambda step, waiting: steps.append(step))
    train, held_out = planted()
    try:
        config, validation = Config(**SETTINGS | given), held_out if validated else None
        problem = Problem(rows or train, (N_USERS, N_ITEMS), config, SEED, validation, like_threshold=4.0)
        factors, history, best = fit_factors_distributed(context, problem, make=LEARNERS[learner])
    except StoppedError as error:
        return {"stopped": str(error), "steps": steps, "saved": checkpoints.saved}
    curve = [(e.train_rmse, e.validation_rmse, e.validation_auc) for e in history]
    arrays = {name: value for name, value in vars(factors).items() if name != "mean"}
    return {"curve": curve, "best": best, "arrays": arrays, "steps": steps, "loaded": checkpoints.loaded}


def learn_both_ways(group: Group, folder: Path, learner: str) -> dict[str, Any]:
    few = planted()[0][:3]
    answers = {}
    for sharding in SHARDINGS:
        place = folder / sharding
        answers[sharding] = learn(group, place, sharding, learner, summed="each epoch")
        few_rows = {"rows": few, "validated": False, **FEW}
        answers[f"{sharding}, few"] = learn(group, place / "few", sharding, learner, **few_rows)
        answers[f"{sharding}, hasty"] = learn(
            group, place / "hasty", sharding, learner, rows=planted()[0][:60], **HASTY
        )
    return answers


def learn_and_stop(group: Group, folder: Path, learner: str, seconds: float, stop_at: int) -> dict[str, Any]:
    """The last rank alone is told to stop after a step in the middle of an epoch."""

    def stop(step: int) -> bool:
        return step == stop_at and group.rank == group.size - 1

    return {way: learn(group, folder / way, way, learner, every_seconds=seconds, stop=stop) for way in SHARDINGS}


def learn_on(group: Group, folder: Path, learner: str) -> dict[str, Any]:
    return {way: learn(group, folder / way, way, learner) for way in SHARDINGS}


class Crash(Exception):
    pass


def crash_and_learn_on(group: Group, folder: Path, learner: str, every_seconds: float, crash_at: int) -> dict[str, Any]:
    """All processes end without a word after a step; what they do then starts from the last checkpoint."""

    def crash(step: int) -> bool:
        if step == crash_at:
            raise Crash
        return False

    answers = {}
    for way in SHARDINGS:
        try:
            learn(group, folder / way, way, learner, every_seconds=every_seconds, stop=crash)
        except Crash:
            answers[way] = learn(group, folder / way, way, learner, every_seconds=every_seconds)
    return answers


class Largest(TorchDispatchMode):
    """The most rows of a table's width that any tensor in this process had, and the types of the tensors seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            if (
                isinstance(local, torch.Tensor)
                and local.ndim == 2
                and local.shape[1] == self.width
                and not local.is_meta
            ):
                self.rows = max(self.rows, len(local))
        return made


def hold_blocks(group: Group, folder: Path) -> dict[str, Any]:
    """What a process holds of tables of 3,000 and 2,000 rows in blocks, and what an epoch sends."""
    random = np.random.default_rng(1)
    rows = Interactions(random.integers(0, 3000, 300), random.integers(0, 2000, 300), random.normal(size=300))
    context = Context(group, Checkpoints(folder, "digest", group, 0), "row")

    def take_epoch(threads: int) -> dict[str, Any]:
        learner = BlockExchange(context, Problem(rows, (3000, 2000), Config(embedding_size=5), 0))
        learner.initialize()
        learner.use_threads(threads)
        learner.begin_epoch(1, 0.1, 0)
        before, moved, spoke, summed, step = group.traffic.sent, 0, 0, 0, 0
        while step < learner.steps:
            blocks = set(np.flatnonzero(learner.where >= 0).tolist())
            learner.prepare(step)
            learner.step(step)
            learner.exchange(step)
            summed += learner.is_summed(step)
            step, spoke = learner.after(step), spoke + 1
            moved += len(blocks - set(np.flatnonzero(learner.where >= 0).tolist()))
        sent = group.traffic.sent - before
        learner.bring(0)
        learner.state()  # sorts
        return {
            "learner": learner,
            "learnt": learner.tables,
            "spoke": spoke,
            "summed": summed,
            "moved": moved,
            "sent": sent,
        }

    answer = take_epoch(threads=1)
    learner = answer.pop("learner")
    block_exchange.SENT, block_exchange.SILENT_ROWS = 1, 1
    often = take_epoch(threads=2)
    del often["learner"]
    return answer | {
        "often": often,
        "tables": [list(table.shape) for table in learner.tables],
        "rows": len(learner.source.cells.ratings),
        "of": int(np.isin(rows.users % 16, learner.own).sum()),
    }


def hold(group: Group, folder: Path) -> dict[str, Any]:
    """What a process holds of tables of 3,001 and 2,001 rows, and the tallest tensor of their width that it makes."""
    network.START_CHUNK = 256
    sizes, config = (3000, 2000), Config(embedding_size=5, batch_size=60, regularization=0.1)
    random = np.random.default_rng(1)
    rows = Interactions(random.integers(0, 3000, 300), random.integers(0, 2000, 300), random.normal(size=300))
    answers: dict[str, Any] = {}
    for way, engine in (("row", RowShardedEngine), ("none", DataParallelEngine)):
        with torch.no_grad(), Largest(config.embedding_size) as largest:
            trained = engine(group, sizes, config, rows)
            trained.initialize(seed=0)
            batches = DistributedBatches(300, 60, group, 0)
            learnt = to_rows(rows[batches.epoch_rows(1)], 0, 1, sizes, group.device, unknown=False)
            trained.set_learning_rate(0.1, 300)
            before = group.traffic.sent
            trained.step(pad_batch(learnt, batches.batch_slice(0), batches.largest_share(0), 60, sizes))
            sent = group.traffic.sent - before
        answers[way] = {"largest": largest.rows, "counts": (len(trained.counts_u), len(trained.counts_i)), "sent": sent}
    split, whole = (engine(group, sizes, config, rows) for engine in (RowShardedEngine, DataParallelEngine))
    with torch.no_grad():
        split.initialize(seed=7)
        whole.initialize(seed=7)
        answers["tables"] = {name: list(table.shape) for name, table in split.tables().items()}
        for name, table in split.tables().items():
            parts = table if name == "weight" else group.gather(table)
            answers[f"same {name}"] = torch.equal(parts, dict(whole.network.named_parameters())[name])
    return answers
