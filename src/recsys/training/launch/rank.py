"""One of the processes that train together, forked by PyTorch's agent (agent.py).

On GPUs the agent starts it as a program, `python -m recsys.training.launch.rank <folder of the job>`. It reads from a
pipe that only the process of the step holds open: the end of it says that the training is to stop, or that this
process is gone. What takes seconds to import is imported late, so that a rank that is not wanted any more is gone at
once.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError, StoppedError
from recsys.training.launch.heartbeat import Heartbeat, RankFailure, RankStatus, append_event, write_failure

if TYPE_CHECKING:
    from recsys.distributed.process_group import Group
    from recsys.models.base.recommender import Recommender
    from recsys.training.launch.job import Job

GRACE_SECONDS = 25.0  # for a checkpoint, once asked to stop
MARGIN_SECONDS = 10.0  # beyond the time-out, in which the process that watches names who is behind
_POLL_SECONDS = 0.5


class StopRequest:
    """Whether this rank was asked to end; ends it by force where it does not follow."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._asked = threading.Event()
        self._agent = os.getppid()
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for work in (self._read, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def asked(self) -> bool:
        """Whether it was."""
        return self._asked.is_set()

    def _read(self) -> None:
        while os.read(self._pipe, 1024):
            pass
        self._asked.set()

    def _watch(self) -> None:
        while not self._asked.wait(_POLL_SECONDS):
            if os.getppid() != self._agent:
                self._asked.set()
        time.sleep(GRACE_SECONDS)
        os._exit(1)


def fit_tasks(folder: Path, environment: Mapping[str, str], stop: StopRequest, heartbeat: Heartbeat) -> None:
    """Fit every task that is not fitted yet; rank 0 leaves the results in the folder.

    Raises:
        InputError: if the ranks were given different data or settings, or what the family raises.
        StoppedError: after a checkpoint, where any rank was asked to stop.
    """
    from recsys.distributed.process_group import join_group
    from recsys.training.launch.job import read_job

    job = read_job(folder)
    device = str(getattr(job.config, "device", "auto"))
    with join_group(environment, device, job.rank_timeout + MARGIN_SECONDS) as group:
        heartbeat.count_sent = lambda: group.traffic.sent
        leader = _check_same_job(job, group)
        if group.rank == 0:
            append_event(folder / "progress.jsonl", "start", attempt=heartbeat.status.attempt, size=group.size)
        chosen: Recommender | None = None
        for number in range(job.tasks):
            chosen = _fit(job, number, group, Path(leader["folder"]), chosen, stop, heartbeat)
        heartbeat.end("done")


def _fit(
    job: "Job",
    number: int,
    group: "Group",
    shared: Path,
    chosen: "Recommender | None",
    stop: StopRequest,
    heartbeat: Heartbeat,
) -> "Recommender | None":
    """Fit one task; returns what the next starts from."""
    from recsys.distributed.checkpoints import Checkpoints
    from recsys.distributed.context import Context
    from recsys.models.base.family import FitOptions, family_module
    from recsys.training.launch.job import read_fitted, read_task, write_fitted

    progress = job.folder / "progress.jsonl"
    fitted_folder = job.task_folder(number) / "fitted"
    task = read_task(job, number)
    if group.agree(group.rank == 0 and fitted_folder.exists()):
        _share_files(fitted_folder, group)
        return chosen or read_fitted(fitted_folder, job.family, task.knowledge)

    def say(text: str) -> None:
        append_event(progress, "note", text=text)

    def report(epoch: int, metrics: dict[str, float]) -> None:
        if group.rank == 0:
            append_event(progress, "report", task=number, epoch=epoch, metrics=metrics)

    folder = shared / fitted_folder.parent.name / "checkpoints"
    checkpoints = _reporting_checkpoints(
        Checkpoints, heartbeat, lambda kind, **content: append_event(progress, kind, task=number, **content)
    )(folder, f"{job.digest}-{number}", group, job.checkpoint_seconds, say)
    context = Context(group, checkpoints, job.sharding, stop.asked, heartbeat.beat)  # type: ignore[arg-type]
    warm_start = chosen if task.validation is None else None
    options = FitOptions(job.seed, task.validation, warm_start, None if chosen else report, context)
    fitted = family_module(job.family).fit(task.knowledge, task.rows, job.config, options)
    if group.rank == 0:
        write_fitted(job, number, fitted)
    return chosen or fitted


def _reporting_checkpoints(base: Any, heartbeat: Heartbeat, tell: Callable[..., None]) -> Any:
    """Checkpoints whose saves and loads rank 0 tells of, and in which a rank waits for the others."""

    class ReportingCheckpoints(base):  # type: ignore[misc]
        def save(self, state: dict[str, Any]) -> None:
            before, started = self.saved, time.monotonic()
            heartbeat.beat(int(heartbeat.status.step), True)
            super().save(state)
            heartbeat.beat(int(heartbeat.status.step), False)
            if self.group.rank == 0 and self.saved > before:
                tell("checkpoint", seconds=time.monotonic() - started)

        def load(self, template: dict[str, Any]) -> dict[str, Any] | None:
            found: dict[str, Any] | None = super().load(template)
            if self.group.rank == 0 and found is not None:
                tell("resumed", number=self.loaded)
            return found

    return ReportingCheckpoints


def _check_same_job(job: "Job", group: "Group") -> dict[str, Any]:
    """What rank 0 says of itself, once all have the same to do; raises InputError where they have not."""
    import json
    import socket

    mine = {
        "host": socket.gethostname(),
        "digest": job.digest,
        "rows": job.rows_digest,
        "folder": str(job.folder),
        "run_id": job.run_id,
    }
    said = [json.loads(text) for text in group.gather_texts(json.dumps(mine))]
    for name, what, remedy in (
        ("rows", "data", "prepare the same ratings with the same parameters on every machine"),
        ("digest", "settings", "type the same line on every machine"),
    ):
        for rank, other in enumerate(said):
            if other[name] != said[0][name]:
                raise InputError(
                    f"all ranks need the same {what}, but rank 0 on {said[0]['host']} has {said[0][name]} and rank "
                    f"{rank} on {other['host']} has {other[name]}; {remedy}"
                )
    if said[0]["folder"] != str(job.folder) and group.rank:
        (job.folder / "joined.json").write_text(json.dumps(said[0]), encoding="utf-8")
    return dict(said[0])


def _share_files(folder: Path, group: "Group") -> None:
    """Give the files of a folder of rank 0 to the machines that do not have them."""
    import json

    import torch

    names: list[str] = []
    if group.rank == 0:
        names = sorted(path.name for path in folder.iterdir())
    names = json.loads(group.gather_texts(json.dumps(names))[0])
    if not group.agree(not folder.exists()):
        return
    lacks = not folder.exists()
    for name in names:
        data = (folder / name).read_bytes() if group.rank == 0 else b""
        size = group.broadcast(torch.tensor(len(data), device=group.device))
        content = torch.empty(int(size), dtype=torch.uint8, device=group.device)
        if group.rank == 0:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        group.broadcast(content)
        if lacks:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.cpu().numpy().tobytes())


def _failure_of(error: BaseException, status: RankStatus) -> RankFailure:
    kind = type(error).__name__
    text = str(error).strip() or kind
    lost = isinstance(error, TimeoutError) or kind.startswith("Dist") or "gloo" in text or "NCCL" in text
    refused = isinstance(error, InputError)
    return RankFailure(status.rank, status.size, status.attempt, time.time(), kind, text, refused, lost and not refused)


def run(folder_of_job: str, pipe: int) -> None:
    """Run as a process of its own, to its end; returns where that is no failure.

    Args:
        pipe: descriptor of the pipe whose end is a request to stop.
    """
    stop = StopRequest(pipe)
    folder, environment = Path(folder_of_job), os.environ
    status = RankStatus(
        int(environment["RANK"]),
        int(environment["WORLD_SIZE"]),
        int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
        os.getpid(),
    )
    heartbeat = Heartbeat(folder / "ranks", status)
    try:
        if stop.asked():
            raise StoppedError
        fit_tasks(folder, environment, stop, heartbeat)
    except StoppedError:
        heartbeat.end("stopped")
    except BaseException as error:
        traceback.print_exc()
        write_failure(folder / "errors", _failure_of(error, status))
        _exit(1)


def _exit(status: int) -> None:
    """End now: what is left of the group must not hold it up, and taking PyTorch down properly costs seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run(sys.argv[1], sys.stdin.fileno())
    _exit(0)
