"""The folder through which the process that runs a step and the ranks that compute communicate.

job.json           what to compute; written last, so that a folder with it is whole
fit-1/          one fit each: that which validation chooses by, that of all rows, that of the older rows
    rows/          columns of the training rows, one .npy file each, which every rank maps into memory
    validation/    likewise
    ids/, biases/  what the knowledge of every recommender holds; an id is a number here
    checkpoints/   states of the fit (recsys.distributed.checkpoints)
    fitted/        what rank 0 leaves: the weights, and description.json
progress.jsonl     what rank 0 tells on the way
ranks/, errors/    status of each rank, and the exception that ended it
log.txt            what the agent and the ranks printed
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from recsys.arrays import Array, Ids
from recsys.data.interactions import Interactions
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.runtime.files import write_atomically
from recsys.settings import Settings
from recsys.training.fit_task import FitTask
from recsys.training.launch.settings import Processes

_FORMAT = 4  # of checkpoints, and of the order in which rows are learnt from
_BLOCK = 1 << 22  # bytes digested at a time
_COLUMNS = ("users", "items", "ratings", "timestamps")


@dataclass(frozen=True)
class JobSpec:
    """What decides the result of a training, and so which state of it may be taken up. Not how many processes."""

    family: str
    config: dict[str, Any]
    seed: int
    dataset: str  # its digest
    refit: bool
    sharding: str
    forward: bool = False

    @property
    def digest(self) -> str:
        """Names the training."""
        text = json.dumps([_FORMAT, asdict(self)], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Job:
    """A folder's job as a rank reads it."""

    folder: Path
    digest: str  # the spec's
    rows_digest: str  # of the rows themselves
    family: str
    config: Settings
    seed: int
    sharding: str
    tasks: int
    checkpoint_seconds: float
    rank_timeout: float
    run_id: str

    def task_folder(self, number: int) -> Path:
        """Of a task, counted from 0."""
        return self.folder / f"fit-{number + 1}"


def write_job(
    folder: Path, spec: JobSpec, tasks: Iterable[FitTask[Interactions]], settings: Processes, run_id: str
) -> list[Knowledge]:
    """Write a job for the ranks; checkpoints and results that are there stay. Returns each task's knowledge."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").unlink(missing_ok=True)
    knowledges: list[Knowledge] = []
    described: list[dict[str, Any]] = []
    digest = hashlib.blake2b(digest_size=16)
    for number, task in enumerate(tasks):
        knowledge = task.knowledge
        task_folder = folder / f"fit-{number + 1}"
        _write_rows(task_folder / "rows", task.rows, digest)
        if task.validation is not None:
            _write_rows(task_folder / "validation", task.validation, digest)
        biases = knowledge.biases
        _write_arrays(task_folder / "biases", {"user": biases.user, "item": biases.item}, digest)
        about = {
            "scale": list(knowledge.scale),
            "like_threshold": knowledge.like_threshold,
            "mean": biases.mean,
            "calibration": [knowledge.calibration.slope, knowledge.calibration.intercept],
            "validation": task.validation is not None,
        }
        digest.update(json.dumps(about, sort_keys=True).encode())
        knowledges.append(knowledge)
        described.append(about)
    widest = max(knowledges, key=lambda knowledge: len(knowledge.seen))  # all ids of the others are among its ids
    for number, knowledge in enumerate(knowledges):
        codes = widest.user_codes(knowledge.user_ids), widest.item_codes(knowledge.item_ids)
        _write_arrays(folder / f"fit-{number + 1}" / "ids", dict(zip(("user", "item"), codes, strict=True)), digest)
    content = {
        **asdict(spec),
        "digest": spec.digest,
        "rows_digest": digest.hexdigest(),
        "tasks": described,
        "checkpoint_seconds": settings.checkpoint_minutes * 60,
        "rank_timeout": settings.rank_timeout,
        "run_id": run_id,
    }
    with write_atomically(folder / "job.json") as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")
    return knowledges


def read_job(folder: Path) -> Job:
    """What `write_job` wrote."""
    from recsys.models.base.family import family_module

    content = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    module = family_module(content["family"])
    kept = {name: content[name] for name in ("digest", "rows_digest", "family", "seed", "sharding", "run_id")}
    kept |= {name: content[name] for name in ("checkpoint_seconds", "rank_timeout")}
    return Job(folder, config=module.Config(**content["config"]), tasks=len(content["tasks"]), **kept)


def read_task(job: Job, number: int) -> FitTask[Interactions]:
    """A task with its columns mapped into memory, and no seen items.

    An id is a number, the code that it has in the task of most rows: so the users and items of a warm start are found
    again.
    """
    about = json.loads((job.folder / "job.json").read_text(encoding="utf-8"))["tasks"][number]
    task_folder = job.task_folder(number)
    biases = Biases(about["mean"], *(_map(task_folder / "biases" / f"{side}.npy") for side in ("user", "item")))
    low, high = about["scale"]
    knowledge = Knowledge(
        cast(Ids, _map(task_folder / "ids" / "user.npy")),
        cast(Ids, _map(task_folder / "ids" / "item.npy")),
        np.zeros((0, 2), np.int32),
        (low, high),
        about["like_threshold"],
        biases,
        LikeCalibration(*about["calibration"]),
    )
    return FitTask(
        knowledge,
        _read_rows(task_folder / "rows"),
        _read_rows(task_folder / "validation") if about["validation"] else None,
    )


def write_fitted(job: Job, number: int, fitted: Recommender) -> None:
    """Write a task's result beside its task_folder, then put it there: it is there whole or not at all."""
    with write_atomically(job.task_folder(number) / "fitted") as partial:
        partial.mkdir()
        biases, calibration = fitted.knowledge.biases, fitted.knowledge.calibration
        save_arrays(partial / "biases.npz", user=biases.user, item=biases.item)
        description = {
            "config": fitted.config.model_dump(),
            "weights": fitted._save_weights(partial),
            "mean": biases.mean,
            "calibration": [calibration.slope, calibration.intercept],
        }
        (partial / "description.json").write_text(json.dumps(description), encoding="utf-8")


def read_fitted(folder: Path, family: str, knowledge: Knowledge) -> Recommender:
    """What `write_fitted` wrote into `folder`, with the knowledge it belongs to; the biases are those of the fit."""
    from recsys.models.base.family import family_module

    description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
    biases = Biases(description["mean"], **load_arrays(folder / "biases.npz"))
    knowledge = replace(knowledge, biases=biases, calibration=LikeCalibration(*description["calibration"]))
    return family_module(family).load(folder, knowledge, description)


def _write_rows(folder: Path, rows: Interactions, digest: Any) -> None:
    columns = {name: getattr(rows, name) for name in _COLUMNS}
    _write_arrays(folder, {name: column for name, column in columns.items() if column is not None}, digest)


def _write_arrays(folder: Path, arrays: dict[str, Array], digest: Any) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, column in arrays.items():
        values = np.ascontiguousarray(column)
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        data = values.reshape(-1).view(np.uint8)
        for start in range(0, len(data), _BLOCK):
            digest.update(data[start : start + _BLOCK])


def _read_rows(folder: Path) -> Interactions:
    there = {name: _map(path) for name in _COLUMNS if (path := folder / f"{name}.npy").exists()}
    return Interactions(there["users"], there["items"], there["ratings"], there.get("timestamps"))


def _map(path: Path) -> Array:
    column: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return column
