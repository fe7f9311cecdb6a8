"""What a rank leaves behind for the process that watches it: its status, its failure, and progress events."""

import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

_EVERY_SECONDS = 0.5


@dataclass
class RankStatus:
    """The state of one rank at its last heartbeat. Times are of the wall clock, in seconds."""

    rank: int
    size: int
    attempt: int  # 0, or how often the processes were started again
    pid: int
    ended: str = ""  # "done" or "stopped"
    at: float = 0.0  # of the last heartbeat, by the machine's monotonic clock: the time of day may be set meanwhile
    since: float = 0.0  # when step or waiting last changed
    begun: float = 0.0  # 1 past its start, in which it may be silent for seconds
    step: float = 0.0
    waiting: float = 0.0  # 1 while it waits for other ranks
    sent: float = 0.0  # bytes to other ranks


_NUMBERS = ("at", "since", "begun", "step", "waiting", "sent")
_RECORD = struct.Struct(f"<{len(_NUMBERS)}d")


class Heartbeat:
    """Keeps a rank's status in a file that is mapped into memory, so that it is up to date wherever the rank hangs.

    A thread updates it twice a second for as long as the process runs.
    """

    def __init__(self, folder: Path, status: RankStatus) -> None:
        self.status = status
        self.count_sent: Callable[[], int] = lambda: 0
        self._name = f"{status.attempt}-{status.rank}"
        self._folder = folder
        status.at = status.since = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.heartbeat"
        path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._record = mmap.mmap(file.fileno(), _RECORD.size)
        self._show()
        self._describe()
        threading.Thread(target=self._run, daemon=True).start()

    def beat(self, step: int, waiting: bool) -> None:
        """The rank is at this step, and begins or ends to wait for others."""
        status = self.status
        status.since, status.step, status.waiting, status.begun = time.monotonic(), step, float(waiting), 1.0
        self._show()

    def end(self, how: str) -> None:
        """The rank ends well: "done" or "stopped"."""
        self.status.ended = how
        self._show()
        self._describe()

    def _show(self) -> None:
        self.status.sent = float(self.count_sent())
        _RECORD.pack_into(self._record, 0, *(getattr(self.status, name) for name in _NUMBERS))

    def _describe(self) -> None:
        write_json(self._folder / f"{self._name}.json", asdict(self.status))

    def _run(self) -> None:
        while True:
            time.sleep(_EVERY_SECONDS)
            self.status.at = time.monotonic()
            self._show()


def read_statuses(folder: Path) -> list[RankStatus]:
    """The status of each rank of the latest attempt, by rank."""
    found: list[RankStatus] = []
    for path in folder.glob("*.json"):
        status = RankStatus(**json.loads(path.read_text(encoding="utf-8")))
        numbers = _RECORD.unpack(path.with_suffix(".heartbeat").read_bytes())
        found.append(replace(status, **dict(zip(_NUMBERS, numbers, strict=True))))
    latest = max((status.attempt for status in found), default=0)
    return sorted((status for status in found if status.attempt == latest), key=lambda status: status.rank)


def write_json(path: Path, content: object) -> None:
    """Replace a file as a whole, so that a reader never sees half of it.

    Not by runtime.files.write_atomically: the file only has to outlive this process and not a loss of power, and
    bringing it to the disk would hold up a rank that starts, ends or fails.
    """
    partial = path.with_name(f".{path.stem}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


def find_hung(statuses: Sequence[RankStatus], timeout: float, now: float) -> tuple[RankStatus, str] | None:
    """The rank that keeps the others waiting for longer than `timeout`, or is silent as long, and a sentence about it.

    A rank that computes without anybody waiting for it may take its time.
    """
    for status in statuses:
        if not status.begun or status.ended:
            continue
        waiting = [other for other in statuses if other is not status and other.waiting]
        silent = now - status.at > timeout
        behind = not status.waiting and now - status.since > timeout and any(now - w.since > timeout for w in waiting)
        if silent or behind:
            position = f"at step {status.step:g}"
            if waiting:
                steps = sorted({f"{other.step:g}" for other in waiting})
                position += f", others wait at {' and '.join(steps)}"
            return status, f"rank {status.rank} of {status.size} did not answer for {timeout:g} s: {position}"
    return None


@dataclass(frozen=True)
class RankFailure:
    """The exception that ended a rank."""

    rank: int
    size: int
    attempt: int
    at: float
    kind: str  # name of its class
    message: str
    refused: bool  # trying again would end likewise
    lost: bool  # another rank went away or did not come: a consequence


def write_failure(folder: Path, failure: RankFailure) -> None:
    """Leave it for the process that watches."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{failure.attempt}-{failure.rank}.json", asdict(failure))


def read_failures(folder: Path) -> list[RankFailure]:
    """Of all ranks and attempts, in the order of time."""
    found = [RankFailure(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda failure: failure.at)


def append_event(path: Path, kind: str, **content: Any) -> None:
    """Add a line to the progress; a line is there whole or, after a crash, without its end."""
    line = json.dumps({"kind": kind, "at": time.time(), **content}) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


class EventReader:
    """Reads the events of a progress file as they are appended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; one that was cut short by a crash is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole, end, _ = data.rpartition(b"\n")
        self._offset += len(whole) + len(end)
        events = []
        for line in whole.split(b"\n"):
            # What follows a line without an end is behind it, in the same line.
            start = line.rfind(b'{"kind": ')
            if start >= 0:
                events.append(json.loads(line[start:]))
        return events
