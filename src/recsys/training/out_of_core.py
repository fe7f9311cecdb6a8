"""Training on ratings that do not fit in memory: what `recsys.training` does, from rows that are read again and again.

Memory grows with users and items, and not with the rows. What a model has seen is sorted on disk and mapped from there.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from recsys.arrays import Codes, Flags
from recsys.data.buckets import Buckets, bits_for, write_array
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions, join
from recsys.data.loader import RowStream
from recsys.models.base.biases import learn_biases_from
from recsys.models.base.calibration import calibrate
from recsys.models.base.capabilities import capabilities
from recsys.models.base.family import Family, FitOptions, Report
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Recommender
from recsys.runtime import memory
from recsys.settings import Settings

MOST_VALIDATED = 1 << 20
"""Validation rows by which epochs are chosen; of more, every so-manyth."""

_MEMORY_A_ROW = 200  # bytes, measured, while a family trains from rows in memory
_BUCKET = 1 << 21  # pairs sorted at a time


def is_needed(family: str, dataset: Dataset, gigabytes: float | None) -> bool:
    """Whether a family is to stream a dataset's rows, for want of memory.

    Raises:
        InputError: if it cannot, and they do not fit in what is available.
    """
    if capabilities(family).streams and not dataset.held:
        allowed = memory.available() / 2 if gigabytes is None else gigabytes * 1e9
        return _rows(dataset) * _MEMORY_A_ROW > allowed
    remedy = "use a machine with more, fewer ratings, or family=matrix_factorization, which reads them from disk"
    check_memory(f"family {family}, which learns", dataset, remedy)
    return False


def check_memory(who: str, dataset: Dataset, remedy: str) -> None:
    """Refuse to learn from rows that do not fit in memory, naming who cannot; raises InputError."""
    rows = _rows(dataset)
    memory.check(rows * _MEMORY_A_ROW, f"{who} from all {rows:,} ratings at once,", remedy)


def _rows(dataset: Dataset) -> int:
    return dataset.size("train") + dataset.size("validation")


def train(
    family: Family, dataset: Dataset, config: Settings, *, seed: int, refit: bool, report: Report | None
) -> tuple[Recommender, Recommender]:
    """The recommender that chose on the validation rows, and the one to use: see `recsys.training.Training`."""
    knowledge, stream, validation = _learn_knowledge(dataset, ("train",), None)
    chosen = family.fit(knowledge, stream, config, FitOptions(seed, validation=validation, report=report))
    if not refit:
        return chosen, chosen
    both, stream, _ = _learn_knowledge(dataset, ("train", "validation"), knowledge)
    return chosen, family.fit(both, stream, config, FitOptions(seed, warm_start=chosen))


def _learn_knowledge(
    dataset: Dataset, parts: tuple[str, ...], first: Knowledge | None
) -> tuple[Knowledge, RowStream, Interactions]:
    """Knowledge of the users and items in these parts only, their rows, and validation rows in its codes."""
    present = np.zeros(len(dataset.user_ids), bool), np.zeros(len(dataset.item_ids), bool)
    for part in parts:
        for block in dataset.blocks(part):
            present[0][block.users] = present[1][block.items] = True
    user_codes, item_codes = _codes(present[0]), _codes(present[1])
    user_ids, item_ids = dataset.user_ids[present[0]], dataset.item_ids[present[1]]
    stream = RowStream([dataset.folder / part for part in parts], user_codes, item_codes, dataset.folder.parent)
    sizes = len(user_ids), len(item_ids)
    biases = learn_biases_from(lambda: (stream.read(group) for group in range(len(stream.groups))), *sizes)
    validation = _sample(dataset, user_codes, item_codes)
    if first is None:
        predicted = biases.rating(validation.users, validation.items)
        calibration = calibrate(predicted, dataset.likes(validation))
    else:
        calibration = first.calibration
    seen = sort_pairs(stream.blocks, len(stream), sizes[0], dataset.folder.parent)
    knowledge = Knowledge(user_ids, item_ids, seen, dataset.scale, dataset.like_threshold, biases, calibration)
    return knowledge, stream, validation


def _codes(present: Flags) -> Codes:
    return np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)


def _sample(dataset: Dataset, user_codes: Codes, item_codes: Codes) -> Interactions:
    every = -(-dataset.size("validation") // MOST_VALIDATED)
    taken, passed = [], 0
    for block in dataset.blocks("validation"):
        some = block[slice(-passed % every, None, every)]
        taken.append(Interactions(user_codes[some.users], item_codes[some.items], some.ratings, some.timestamps))
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
