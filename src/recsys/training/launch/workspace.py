"""Where jobs are kept: one folder a training, held by one process at a time, and kept where it was interrupted."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from recsys.errors import DivergedError, InputError
from recsys.runtime.files import write_atomically


@dataclass
class Workspace:
    """The folder of a training, and the run of the interrupted training in it, or ""."""

    folder: Path
    interrupted_run: str = ""

    def record_run(self, run_id: str) -> None:
        """Record the run of this training, for the process that resumes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.folder / "training.json") as partial:
            partial.write_text(json.dumps({"run_id": run_id}), encoding="utf-8")


@contextmanager
def open_workspace(
    jobs: Path, digest: str, *, resume: bool, several_machines: bool, say: Callable[[str], None]
) -> Iterator[Workspace]:
    """A folder for the training of this digest; at the end it is removed unless there is something to go on with.

    A process that finds it in use takes a folder of its own, which nobody goes on with.

    Raises:
        InputError: if an interrupted training is to be gone on with, and another process does that just now.
    """
    jobs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(jobs / f"{digest}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        if resume and not several_machines:
            raise InputError(
                f"parameter 'resume': the same training is under way in another process of this machine (it holds "
                f"{jobs / digest}); wait for its end, or pass resume=none for one beside it"
            ) from None
        if not several_machines:
            say("the same training is under way in another process; this one begins beside it")
        own = jobs / f"{digest}-{secrets.token_hex(4)}"
        try:
            yield Workspace(own)
        finally:
            shutil.rmtree(own, ignore_errors=True)
        return
    try:
        workspace = Workspace(jobs / digest)
        _resume_or_clear(workspace, resume, say)
        try:
            yield workspace
        except DivergedError:
            shutil.rmtree(workspace.folder, ignore_errors=True)
            raise
        except BaseException:
            _leave(workspace.folder)
            raise
        shutil.rmtree(workspace.folder, ignore_errors=True)
    finally:
        if not (jobs / digest).exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def has_state(folder: Path) -> bool:
    """Whether there is anything to go on with."""
    return any(folder.glob("fit-*/checkpoints/[0-9]*")) or any(folder.glob("fit-*/fitted"))


def _resume_or_clear(workspace: Workspace, resume: bool, say: Callable[[str], None]) -> None:
    found = has_state(workspace.folder)
    if found and resume:
        try:
            kept = json.loads((workspace.folder / "training.json").read_text(encoding="utf-8"))
            workspace.interrupted_run = str(kept["run_id"])
        except (OSError, ValueError, KeyError):
            workspace.interrupted_run = ""
        return
    if found:
        say("an interrupted training of the same is forgotten: this one begins anew (resume=auto goes on with it)")
    elif resume:
        say("resume=auto: there is no interrupted training of the same here; this one begins anew")
    shutil.rmtree(workspace.folder, ignore_errors=True)


def _leave(folder: Path) -> None:
    """Keep what can be gone on with; the rows are written again then."""
    if not has_state(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for part in ("rows", "validation", "biases"):
        for path in folder.glob(f"fit-*/{part}"):
            shutil.rmtree(path, ignore_errors=True)
