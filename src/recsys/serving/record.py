"""The record of what was served: one row a list, in the file of the feedback, written beside answering.

Nothing waits for it. A thread hands what has gathered to another process (recsys.serving.record_writer), and lets go of
it once that process says that it is written. What was handed to a process that ended is handed to the next, and counts
once by its request. Where too much waits, further lists are dropped and counted.
"""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np

from recsys.arrays import Floats
from recsys.serving.record_table import Row, WriteError
from recsys.serving.record_writer import is_ready, receive, send

_MOST_WAITING = 50_000  # lists
_MOST_ROWS = 2_000  # a message
_TURN_SECONDS = 0.05  # so little is lost with a worker that is killed
_RETRY_SECONDS = 1.0
_LAST_TRIES = 2  # at the end
_FOUR_BYTES = np.dtype("<f4")
_PACKAGES = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from recsys.serving.record_writer import main; main()"


class Impression(NamedTuple):
    """A list as it was answered. No data of persons beyond the ids that a client gave."""

    request: str
    moment: float  # seconds since 1970
    user: str  # empty where the request named none
    version: str
    arm: str
    policy: str
    first: int  # how many items of the ranking stand before the first one
    items: str  # a JSON list of ids, best first
    likes: Floats  # (n,) the probability of a like of each
    trial: str | None = None  # the id of the trial that was under way
    seconds: float | None = None  # to make the list
    failed: bool | None = None  # the arm's version raised; the champion's list was answered, or none
    beside: str | None = None  # in shadow mode, what the challenger would have answered, as JSON
    propensities: Floats | None = None  # (n,) the probability of being in that list, where the server explores


class Writer(Protocol):
    """Whoever runs `record_writer.write`, and the two pipes to it, neither of which is buffered."""

    asked: IO[bytes]
    said: IO[bytes]

    def close(self) -> None:
        """Wait for its end, after `asked` was closed, and close the rest."""


class WriterProcess:
    """A process that runs it."""

    def __init__(self, path: Path, retention: float) -> None:
        """Start it for the file of the feedback; lists are deleted after so many days."""
        # -S: it needs no packages but ours, and begins sooner.
        command = [sys.executable, "-S", "-c", _PROGRAM, _PACKAGES, str(path), str(retention)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin
        assert self._process.stdout
        self.pid, self.asked, self.said = self._process.pid, self._process.stdin, self._process.stdout

    def close(self) -> None:
        """Wait for its end."""
        self._process.wait()
        self.said.close()


class Recorder:
    """What one process keeps for the record until it is written."""

    def __init__(
        self, start: Callable[[], Writer], count: Callable[[str, int], None], most_waiting: int = _MOST_WAITING
    ) -> None:
        """Begin, with the table in its place, if it can be.

        Args:
            start: starts a writer, now and whenever one has ended.
            count: is told "written" or "dropped", and how many lists.
        """
        self._start = start
        self._count = count
        self._most_waiting = most_waiting
        self._waiting: deque[Row] = deque()
        self._handed: deque[Row] = deque()  # those that the writer has, which are older; of this object's thread alone
        self._writer: Writer | None = None
        self._ends = threading.Event()
        self.problem = ""
        self._turn(self._hand_over)
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def add(self, impression: Impression) -> None:
        """Keep a list for the record. It is handed over soon, and lost if the process is killed before."""
        if len(self._waiting) + len(self._handed) < self._most_waiting:
            self._waiting.append(_row(impression))
        else:
            self._count("dropped", 1)

    def close(self) -> None:
        """Wait until what is there is written, and end the thread."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(_RETRY_SECONDS if self.problem else _TURN_SECONDS):
            self._turn(self._hand_over)
        for _ in range(_LAST_TRIES):
            if self._waiting or self._writer is not None:
                self._turn(self._finish)
        if self._waiting:
            self._count("dropped", len(self._waiting))

    def _turn(self, act: Callable[[], None]) -> None:
        try:
            act()
            self.problem = ""
        except (OSError, EOFError, WriteError) as error:  # a full disk, a file that is held or gone, a killed writer
            self.problem = str(error) or "the process that writes the record has ended"
            self._let_end()

    def _hand_over(self) -> None:
        if self._writer is None:
            self._writer = self._start()
            self._confirm()
        # One by one: requests go on adding, and a deque that grows meanwhile cannot be looped over.
        while rows := [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_ROWS))]:
            self._handed.extend(rows)
            send(self._writer.asked, rows)
        while is_ready(self._writer.said):
            self._confirm()

    def _confirm(self) -> None:
        """Let go of what the writer says is written, next."""
        assert self._writer
        found = receive(self._writer.said)
        if isinstance(found, str):
            raise WriteError(found)
        for _ in range(found):
            self._handed.popleft()
        if found:
            self._count("written", found)

    def _finish(self) -> None:
        """Hand over the rest, and wait until it is written."""
        self._hand_over()
        assert self._writer
        self._writer.asked.close()
        while self._handed:
            self._confirm()
        self._let_end()

    def _let_end(self) -> None:
        """Close what is left of a writer; what it has written and not confirmed will be handed over again."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.asked.close()
            try:
                while True:
                    self._confirm()
            except WriteError as error:
                self.problem = str(error)
            except (OSError, EOFError):
                pass
            self._writer.close()
        self._writer = None
        self._waiting.extendleft(reversed(self._handed))
        self._handed.clear()


def _row(one: Impression) -> Row:
    """What the table holds of a list."""
    return (*one[:8], _bytes(one.likes), *one[9:13], _bytes(one.propensities))


def _bytes(numbers: Floats | None) -> bytes | None:
    return None if numbers is None else np.asarray(numbers, _FOUR_BYTES).tobytes()
