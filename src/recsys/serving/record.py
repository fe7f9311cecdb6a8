"""The record of what was served, in the file of the feedback, written beside answering.

Nothing waits for it. What has gathered is handed to another process (recsys.serving.record_writer) between requests,
many lists in one block, and let go of once that process says that it is written. What was handed to a process that
ended is handed to the next, as it was, and counts once. Where too much waits, further lists are dropped and counted.
"""

import fcntl
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np

from recsys.arrays import Floats
from recsys.serving.record_blocks import MOST_LISTS, Impression, pack
from recsys.serving.record_table import Message, Row, WriteError
from recsys.serving.record_writer import is_ready, packed, receive

_MOST_WAITING = 50_000  # lists
TURN_SECONDS = 0.05  # so little is lost with a worker that is killed
_PIPE_BYTES = 1 << 20  # what 20 turns of a busy worker hand over
_RETRY_SECONDS = 1.0
_LAST_TRIES = 2  # at the end
_FOUR_BYTES = np.dtype("<f4")
_PACKAGES = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from recsys.serving.record_writer import main; main()"


class _Handed(NamedTuple):
    """A message, and how many lists it holds."""

    content: bytes
    lists: int


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
        with suppress(OSError, AttributeError):  # the user has many large ones already; another system
            fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.pid, self.asked, self.said = self._process.pid, self._process.stdin, self._process.stdout

    def close(self) -> None:
        """Wait for its end."""
        self._process.wait()
        self.said.close()


class Recorder:
    """What one process keeps for the record until it is written.

    There is no thread: it would take turns with requests for Python's lock, and each turn stops them until the system
    has run it, which is long where all processors are busy.
    """

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
        self._waiting: deque[Impression] = deque()
        self._handed: deque[_Handed] = deque()  # what the writer has, or begins to have, which is older
        self._again: deque[_Handed] = deque()  # what a writer had that has ended, which is handed over first
        self._held = 0  # lists of both
        self._left = memoryview(b"")  # of the message that is being sent
        self._writer: Writer | None = None
        self._next_start = 0.0  # when the next writer may be started
        self.problem = ""
        self._try(self._begin)

    def add(self, impression: Impression) -> None:
        """Keep a list for the record. It is handed over by the next turn, and lost if the process is killed before."""
        if len(self._waiting) + self._held < self._most_waiting:
            self._waiting.append(impression)
        else:
            self._count("dropped", 1)

    def turn(self) -> None:
        """Hand over what has gathered, and let go of what is written. Waits for nothing; one thread calls it, often."""
        if self._writer is not None or time.monotonic() >= self._next_start:
            self._try(self._hand_over)

    def close(self) -> None:
        """Wait until what is there is written; nothing may be added or handed over meanwhile."""
        for _ in range(_LAST_TRIES):
            if self._waiting or self._held or self._writer is not None:
                self._try(self._finish)
        if left := len(self._waiting) + self._held:
            self._count("dropped", left)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (OSError, EOFError, WriteError) as error:  # a full disk, a file that is held or gone, a killed writer
            self.problem = self._let_end() or str(error) or "the process that writes the record has ended"
            self._next_start = time.monotonic() + _RETRY_SECONDS

    def _begin(self) -> None:
        self._confirm(self._writing())

    def _writing(self) -> Writer:
        """The writer, which is started where there is none."""
        if self._writer is None:
            self._writer = self._start()
            os.set_blocking(self._writer.asked.fileno(), False)
        return self._writer

    def _hand_over(self) -> None:
        writer = self._writing()
        while is_ready(writer.said):
            self._confirm(writer)
        self._send(writer)

    def _send(self, writer: Writer) -> bool:
        """Send as much of a message as there is room for; whether there was one."""
        if not self._left:
            if not self._again and not self._pack():
                return False
            self._handed.append(self._again.popleft())
            self._left = memoryview(self._handed[-1].content)
        self._left = self._left[writer.asked.write(self._left) or 0 :]
        return True

    def _pack(self) -> bool:
        """Make a message of what has gathered; whether there was anything."""
        # One by one: others go on adding, and a deque that grows meanwhile cannot be looped over.
        found = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_LISTS))]
        if not found:
            return False
        self._held += len(found)
        self._again.append(_Handed(packed(message(found)), len(found)))
        return True

    def _confirm(self, writer: Writer) -> None:
        """Let go of what the writer says is written, next."""
        found = receive(writer.said)
        if isinstance(found, str):
            raise WriteError(found)
        lists = sum(self._handed.popleft().lists for _ in range(found))
        self._held -= lists
        if lists:
            self._count("written", lists)
        self.problem = ""

    def _finish(self) -> None:
        """Hand over the rest, and wait until it is written."""
        writer = self._writing()
        os.set_blocking(writer.asked.fileno(), True)
        while self._send(writer):
            pass
        writer.asked.close()
        while self._handed:
            self._confirm(writer)
        self._let_end()

    def _let_end(self) -> str:
        """Close what is left of a writer, which ends, and say what is wrong with it.

        What it has written and not confirmed will be handed over again.
        """
        problem = ""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.asked.close()
            try:
                while True:
                    self._confirm(self._writer)
            except WriteError as error:
                problem = str(error)
            except (OSError, EOFError):
                pass
            self._writer.close()
        self._writer, self._left = None, memoryview(b"")
        self._again.extendleft(reversed(self._handed))
        self._handed.clear()
        return problem


def message(lists: Sequence[Impression]) -> Message:
    """What the writer is handed of lists: those of a trial as rows, all others as one block."""
    usual = [one for one in lists if one.trial is None]
    # A tuple: what is sent knows no other kinds.
    return tuple(pack(usual)) if usual else None, [_row(one) for one in lists if one.trial is not None]


def _row(one: Impression) -> Row:
    """What the table `served` holds of a list."""
    return (*one[:8], _bytes(one.likes), *one[9:13], _bytes(one.propensities))


def _bytes(numbers: Floats | None) -> bytes | None:
    return None if numbers is None else np.asarray(numbers, _FOUR_BYTES).tobytes()
