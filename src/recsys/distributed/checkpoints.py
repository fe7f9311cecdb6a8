"""The state of a training on disk, by torch.distributed.checkpoint: complete or not there, and the last two.

A checkpoint is a folder named by its number. It is written under another name, brought to the disk and renamed, so that
however the processes end, a folder with a number is complete. Tensors that every process has whole are written by
rank 0 alone; of DTensors every process writes its part, and any number of processes can read them back. The folder is
the user's own: PyTorch keeps the index of a checkpoint in a pickle, which nothing else in this project reads.
"""

import json
import shutil
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from recsys.distributed.process_group import Group
from recsys.runtime.files import publish

KEPT = 2
INDEX = "checkpoint.json"  # the digest, and the size of every file


class Checkpoints:
    """The checkpoints of one training, in one folder.

    If tables are split, all machines need to see the same folder; if they are whole, only rank 0 uses it.

    Args:
        folder: made when first needed.
        digest: of all that decides the result; a checkpoint of another is not used.
        group: the processes whose state it is; every method is one collective.
        every_seconds: between checkpoints; 0 stands for one at the end of each epoch.
        say: called in rank 0 with a sentence about what was skipped or failed.
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        group: Group,
        every_seconds: float,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.digest, self.group, self.every_seconds, self.say = folder, digest, group, every_seconds, say
        self.saved = 0  # by these processes
        self.loaded: int | None = None  # the number of the checkpoint that was gone on from
        self._last = time.monotonic()

    def is_due(self, at_epoch_end: bool = True) -> bool:
        """Whether to save now: the same answer in every process, by the clock of rank 0."""
        if not self.every_seconds:
            return at_epoch_end
        return self.group.agree(self.is_wanted())

    def is_wanted(self) -> bool:
        """Whether it is time for one within an epoch, by this process: only rank 0 ever says so. No collective."""
        return bool(self.every_seconds) and self._leads and time.monotonic() - self._last >= self.every_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Writes tensors and DTensors by their names. A disk that is full, or fails, is told and nothing more."""
        number = self._from_leader(lambda: 1 + max(self._numbers(), default=0))
        draft = self.folder / f"partial-{number}"
        split = _is_split(state)
        files: set[str] = set()

        def prepare() -> None:
            for left in self.folder.glob("partial-*"):
                shutil.rmtree(left)
            draft.mkdir(parents=True)

        def write() -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")
                index = dcp.save(state, storage_writer=dcp.FileSystemWriter(draft), no_dist=not split)
            files.update(info.relative_path for info in (index.storage_data or {}).values())

        failure = self._together(prepare, leader_alone=True)
        failure = failure or self._together(write, leader_alone=not split)
        failure = failure or self._together(lambda: self._finish(draft, files), leader_alone=True)
        if failure and self._leads:
            shutil.rmtree(draft, ignore_errors=True)
            self.say(f"checkpoint {number} could not be written: {failure}; the training goes on without it")
        self.saved += not failure
        self._last = time.monotonic()

    def load(self, template: dict[str, Any]) -> dict[str, Any] | None:
        """Fills the template's tensors from the newest checkpoint that is whole and of this digest, in place.

        None where there is none; the tensors may then hold anything, since a reading that failed may have begun.
        """
        tried: set[int] = set()
        split = _is_split(template)
        while number := self._from_leader(lambda: self._newest(tried)):
            tried.add(number)
            read = partial(self._read, number, template, split)
            failure = self._together(read, leader_alone=not split, spares=(Exception,))
            if not failure:
                if not split:
                    with torch.no_grad():
                        for name in sorted(template):
                            self.group.broadcast(template[name])
                self.loaded = number
                return template
            if self._leads:
                self.say(f"checkpoint {number} cannot be read and is skipped: {failure}")
        return None

    @property
    def _leads(self) -> bool:
        return self.group.rank == 0

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self.folder.glob("*") if path.name.isdigit()]

    def _newest(self, tried: set[int]) -> int:
        """The newest that looks whole; 0 where none does."""
        for number in sorted(set(self._numbers()) - tried, reverse=True):
            tried.add(number)
            fault = self._fault(self.folder / str(number))
            if not fault:
                return number
            self.say(f"checkpoint {number} is skipped: {fault}")
        return 0

    def _fault(self, path: Path) -> str:
        try:
            index = json.loads((path / INDEX).read_text(encoding="utf-8"))
            sizes, digest = index["files"], index["digest"]
            if digest != self.digest:
                return f"it is of training {digest}, not of {self.digest}"
            found = {name: (path / name).stat().st_size for name in sizes}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"it is not whole ({error})"
        wrong = [name for name in sizes if sizes[name] != found[name]]
        return f"it is not whole ({wrong[0]} has {found[wrong[0]]} of {sizes[wrong[0]]} bytes)" if wrong else ""

    def _finish(self, draft: Path, files: set[str]) -> None:
        missing = [name for name in sorted(files) if not (draft / name).exists()]
        if missing:
            raise OSError(f"{draft / missing[0]}: all machines need to share this folder, and rank 0 does not see it")
        sizes = {path.name: path.stat().st_size for path in draft.iterdir()}
        index = {"digest": self.digest, "processes": self.group.size, "files": sizes}
        (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
        publish(draft, self.folder / draft.name.removeprefix("partial-"))
        for number in sorted(self._numbers())[:-KEPT]:
            shutil.rmtree(self.folder / str(number), ignore_errors=True)

    def _read(self, number: int, template: dict[str, Any], split: bool) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load(template, storage_reader=dcp.FileSystemReader(self.folder / str(number)), no_dist=not split)

    def _from_leader(self, find: Callable[[], int]) -> int:
        number = torch.tensor(find() if self._leads else 0, device=self.group.device)
        return int(self.group.broadcast(number))

    def _together(
        self,
        work: Callable[[], None],
        *,
        leader_alone: bool,
        spares: tuple[type[Exception], ...] = (OSError, RuntimeError),  # others are raised
    ) -> str:
        """What went wrong in any process, or nothing; all hear the same."""
        failure = ""
        if self._leads or not leader_alone:
            try:
                work()
            except CheckpointException as error:
                reasons = [reason for reason, _ in error.failures.values()]
                unexpected = [reason for reason in reasons if not isinstance(reason, spares)]
                if unexpected:
                    raise unexpected[0] from error
                failure = _text(reasons[0])
            except spares as error:
                failure = _text(error)
        return next((text for text in self.group.gather_texts(failure) if text), "")


def _is_split(state: dict[str, Any]) -> bool:
    return any(isinstance(value, DTensor) for value in state.values())


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
