"""What a rank leaves behind for the process that watches it: signs of life, last words, and progress."""

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
class Life:
    """One rank's last sign of life. Times are of the wall clock, in seconds."""

    rank: int
    size: int
    attempt: int  # 0, or how often the processes were started again
    pid: int
    ended: str = ""  # "done" or "stopped"
    at: float = 0.0  # when it last gave a sign
    since: float = 0.0  # when step or waiting last changed
    begun: float = 0.0  # 1 past its start, in which it may be silent for seconds
    step: float = 0.0
    waiting: float = 0.0  # 1 while it waits for other ranks
    sent: float = 0.0  # bytes to other ranks


_SIGNS = ("at", "since", "begun", "step", "waiting", "sent")
_LAYOUT = struct.Struct(f"<{len(_SIGNS)}d")


class Pulse:
    """Keeps a rank's signs in a file that is mapped into memory, so that they are up to date wherever it hangs.

    A thread of its own shows twice a second that the process runs at all.
    """

    def __init__(self, folder: Path, life: Life) -> None:
        self.life = life
        self.count_sent: Callable[[], int] = lambda: 0
        self._name = f"{life.attempt}-{life.rank}"
        self._folder = folder
        life.at = life.since = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.signs"
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._signs = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._show()
        self._describe()
        threading.Thread(target=self._run, daemon=True).start()

    def beat(self, step: int, waiting: bool) -> None:
        """The rank is at this step, and begins or ends to wait for others."""
        life = self.life
        life.since, life.step, life.waiting, life.begun = time.time(), step, float(waiting), 1.0
        self._show()

    def end(self, how: str) -> None:
        """The rank ends well: "done" or "stopped"."""
        self.life.ended = how
        self._show()
        self._describe()

    def _show(self) -> None:
        self.life.sent = float(self.count_sent())
        _LAYOUT.pack_into(self._signs, 0, *(getattr(self.life, name) for name in _SIGNS))

    def _describe(self) -> None:
        write_json(self._folder / f"{self._name}.json", asdict(self.life))

    def _run(self) -> None:
        while True:
            time.sleep(_EVERY_SECONDS)
            self.life.at = time.time()
            self._show()


def read_lives(folder: Path) -> list[Life]:
    """The lives of the ranks of the latest attempt, by rank."""
    found: list[Life] = []
    for path in folder.glob("*.json"):
        life = Life(**json.loads(path.read_text(encoding="utf-8")))
        signs = _LAYOUT.unpack(path.with_suffix(".signs").read_bytes())
        found.append(replace(life, **dict(zip(_SIGNS, signs, strict=True))))
    latest = max((life.attempt for life in found), default=0)
    return sorted((life for life in found if life.attempt == latest), key=lambda life: life.rank)


def write_json(path: Path, content: object) -> None:
    """Put a whole document in its place at once."""
    partial = path.with_name(f".{path.stem}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


def find_hung(lives: Sequence[Life], timeout: float, now: float) -> tuple[Life, str] | None:
    """The rank that keeps the others waiting for longer than `timeout`, or is silent as long, and a sentence about it.

    A rank that computes without anybody waiting for it may take its time.
    """
    for life in lives:
        if not life.begun or life.ended:
            continue
        waiting = [other for other in lives if other is not life and other.waiting]
        silent = now - life.at > timeout
        behind = not life.waiting and now - life.since > timeout and any(now - w.since > timeout for w in waiting)
        if silent or behind:
            place = f"at step {life.step:g}"
            if waiting:
                steps = sorted({f"{other.step:g}" for other in waiting})
                place += f", others wait at {' and '.join(steps)}"
            return life, f"rank {life.rank} of {life.size} did not answer for {timeout:g} s: {place}"
    return None


@dataclass(frozen=True)
class LastWords:
    """The exception that ended a rank."""

    rank: int
    size: int
    attempt: int
    at: float
    kind: str  # name of its class
    message: str
    refused: bool  # trying again would end likewise
    lost: bool  # another rank went away or did not come: a consequence


def write_last_words(folder: Path, words: LastWords) -> None:
    """Leave them for the process that watches."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{words.attempt}-{words.rank}.json", asdict(words))


def read_last_words(folder: Path) -> list[LastWords]:
    """Of all ranks and attempts, in the order of time."""
    found = [LastWords(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda words: words.at)


def append_event(path: Path, kind: str, **content: Any) -> None:
    """Add a line to the progress; a line is there whole or, after a crash, without its end."""
    line = json.dumps({"kind": kind, "at": time.time(), **content}) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


class Tail:
    """Reads the lines of a progress file as they come."""

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
