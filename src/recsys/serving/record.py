"""The record of what was served: one row a list, in the file of the feedback, written beside answering.

Nothing waits for it. A thread hands what has gathered to a process that writes (recsys.serving.record_writer); what
cannot be written now is tried again, and counts once by its request. Where too much waits, further lists are dropped
and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from recsys.arrays import Floats
from recsys.serving.record_table import Row, WriteError

_MOST_WAITING = 50_000  # lists
_MOST_ROWS = 2_000  # a commit, so that feedback never waits long for its turn
_WRITE_SECONDS = 0.05  # so little is lost with a worker that is killed
_RETRY_SECONDS = 1.0
_PRUNE_SECONDS = 60.0
_MOST_PRUNED = 5_000  # a commit
_DAY = 86_400
_FOUR_BYTES = np.dtype("<f4")


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
    """Who writes the table: a process of its own, or this one."""

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows; one whose request is there counts once. Raises WriteError."""

    def prune(self, before: float, most: int) -> int:
        """Delete at most so many rows that are older than a moment; how many there were. Raises WriteError."""

    def close(self) -> None:
        """Write no more."""


class Recorder:
    """What one process keeps for the record until it is written."""

    def __init__(
        self, writer: Writer, retention: float, count: Callable[[str, int], None], most_waiting: int = _MOST_WAITING
    ) -> None:
        """Begin to hand over what is added.

        Args:
            writer: is closed at the end.
            retention: days after which a list is deleted.
            count: is told "written" or "dropped", and how many lists.
        """
        self._writer = writer
        self._retention = retention
        self._count = count
        self._most_waiting = most_waiting
        self._waiting: deque[Row] = deque()
        self._ends = threading.Event()
        self._pruned = -_PRUNE_SECONDS
        self.problem = ""
        self._thread = threading.Thread(target=self._write_all, name="record", daemon=True)
        self._thread.start()

    def add(self, impression: Impression) -> None:
        """Keep a list for the record. It is written soon, and lost if the process is killed before."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append(_row(impression))
        else:
            self._count("dropped", 1)

    def close(self) -> None:
        """Write what waits, once more, and end the thread."""
        self._ends.set()
        self._thread.join()

    def _write_all(self) -> None:
        pause = 0.0
        while True:
            ended = self._ends.wait(pause)
            try:
                left = len(self._waiting)  # what comes meanwhile waits for the next turn
                while left > 0:
                    left -= self._write()
                self._prune()
                self.problem, pause = "", _WRITE_SECONDS
            except WriteError as error:
                self.problem, pause = str(error), _RETRY_SECONDS
            if ended:
                break
        if self._waiting:
            self._count("dropped", len(self._waiting))
        self._writer.close()

    def _write(self) -> int:
        """Write the oldest that wait, and tell how many; they are let go only then."""
        rows = list(islice(self._waiting, _MOST_ROWS))
        self._writer.add(rows)
        for _ in rows:
            self._waiting.popleft()
        self._count("written", len(rows))
        return len(rows)

    def _prune(self) -> None:
        """Delete what is older than the retention, some at a time."""
        if time.monotonic() - self._pruned < _PRUNE_SECONDS:
            return
        if self._writer.prune(time.time() - self._retention * _DAY, _MOST_PRUNED) < _MOST_PRUNED:
            self._pruned = time.monotonic()


def _row(one: Impression) -> Row:
    """What the table holds of a list."""
    return (*one[:8], _bytes(one.likes), *one[9:13], _bytes(one.propensities))


def _bytes(numbers: Floats | None) -> bytes | None:
    return None if numbers is None else np.asarray(numbers, _FOUR_BYTES).tobytes()
