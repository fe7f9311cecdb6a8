"""Training on ratings that do not fit in memory: when that is needed, and the fit tasks, whose rows are on disk.

Memory grows with users and items, and not with the rows. The rows are read again in every pass over them. The pairs
that a model has seen are sorted on disk and mapped from there.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Codes
from recsys.data.buckets import Buckets, bits_for, write_array
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, join
from recsys.data.loader import RowStream
from recsys.models.base.capabilities import capabilities
from recsys.runtime import memory
from recsys.training.fit_task import FitTask, RecodedRows, Recoding, make_fit_task

MOST_VALIDATED = 1 << 20
"""The most validation rows by which epochs are chosen; of more, evenly spaced ones are taken."""

_MEMORY_A_ROW = 300  # bytes, measured, while a family trains from rows in memory: of bayesian_mf, the most
_BUCKET = 1 << 21  # pairs sorted at a time


def is_needed(family: str, dataset: Dataset, gigabytes: float | None) -> bool:
    """Whether a family has to read a dataset's rows from disk because they do not fit in memory.

    Raises:
        InputError: if the family cannot, and they do not fit in what is available.
    """
    if capabilities(family).streams and not dataset.held:
        allowed = memory.available() / 2 if gigabytes is None else gigabytes * 1e9
        return _rows(dataset) * _MEMORY_A_ROW > allowed
    remedy = "use a machine with more, fewer ratings, or family=matrix_factorization, which reads them from disk"
    check_memory(f"family {family}, which learns", dataset, remedy)
    return False


def check_memory(who: str, dataset: Dataset, remedy: str) -> None:
    """Raise InputError if the rows do not fit in memory; `who` in the message names what needs them there."""
    rows = _rows(dataset)
    memory.check(rows * _MEMORY_A_ROW, f"{who} from all {rows:,} ratings at once,", remedy)


def _rows(dataset: Dataset) -> int:
    return dataset.size("train") + dataset.size("validation")


def fit_tasks(dataset: Dataset, refit: bool) -> Iterator[FitTask[RowStream]]:
    """As `trainer.fit_tasks`, with rows that are read from disk."""
    first = _task_on_disk(dataset, ("train",), validation=sample_validation(dataset))
    yield first
    if refit:
        yield _task_on_disk(dataset, ("train", "validation"), first=first.knowledge)


def _task_on_disk(dataset: Dataset, parts: tuple[str, ...], **given: Any) -> FitTask[RowStream]:
    def blocks() -> Iterator[Interactions]:
        for part in parts:
            yield from dataset.blocks(part)

    def recode(recoding: Recoding) -> RecodedRows[RowStream]:
        folders, scratch = [dataset.folder / part for part in parts], dataset.folder.parent
        stream = RowStream(folders, recoding.user_codes, recoding.item_codes, scratch)
        seen = sort_pairs(stream.blocks, len(stream), len(recoding.user_ids), scratch)
        return RecodedRows(stream, stream.blocks, seen)

    return make_fit_task(dataset, blocks, recode, **given)


def sample_validation(dataset: Dataset) -> Interactions:
    """Validation rows, in the dataset's codes: all, or evenly spaced ones if there are more than MOST_VALIDATED."""
    every = -(-dataset.size("validation") // MOST_VALIDATED)
    taken, passed = [], 0
    for block in dataset.blocks("validation"):
        taken.append(block[slice(-passed % every, None, every)])
        passed += len(block)
    return join(taken)


def sort_pairs(blocks: Callable[[], Iterable[Interactions]], rows: int, n_users: int, folder: Path) -> Codes:
    """The (user, item) codes of all rows, sorted by user, shape (n, 2), mapped from a file that nobody else sees.

    Args:
        rows: how many there are.
        folder: where there is room for them on disk, twice 8 bytes each.
    """
    widest = np.uint64(2**64 // n_users)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        path = Path(name) / "seen"
        with Buckets(folder, [("user", "i4"), ("item", "i4")], bits_for(rows, _BUCKET)) as buckets:
            for block in blocks():
                buckets.add(block.users.astype(np.uint64) * widest, user=block.users, item=block.items)
            with path.open("wb", buffering=0) as file:
                for records in buckets.drain():
                    order = np.argsort(records["user"], kind="stable")
                    write_array(file, np.stack([records["user"][order], records["item"][order]], axis=1))
        # The file is gone with the folder, and its content when the array is no longer used.
        return np.memmap(path, np.int32, "r", shape=(rows, 2))
