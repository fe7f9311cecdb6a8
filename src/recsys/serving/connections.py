"""Who takes a new connection: the worker that has the fewest, which the system by itself does not see to.

A worker of uvloop takes all connections that wait. A client's eight, opened at once, then belong to one worker, and the
others have nothing to do. For the same reason no worker takes any before all that began with it are up.
"""

import asyncio
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryFile

_BYTES = 8  # of a count
_LEAVE_SECONDS = 0.005  # that a connection waits for a worker with fewer, which may be at a request
_ALIKE = 8  # counts that differ by less than one in so many are alike
_PAUSE_SECONDS = 1.0  # after a failure, such as no descriptor left
_STARTING = -1  # the count of a worker that begins with the server, and is not up yet
_UP_SECONDS = 60.0  # that a worker waits for those that begin with it: one may hang
_LOOK_SECONDS = 0.01


def open_counts(workers: int) -> int:
    """A file without a name for the counts of so many workers, all to start: its descriptor, for them to inherit."""
    with TemporaryFile() as file:
        file.write(_STARTING.to_bytes(_BYTES, sys.byteorder, signed=True) * workers)
        file.flush()
        return os.dup(file.fileno())


class Counts:
    """How many connections each worker has, in memory that they share."""

    def __init__(self, descriptor: int) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("q")

    def add(self, worker: int, more: int) -> None:
        """Count connections of a worker that came, or went."""
        self._counts[worker] += more

    def reset(self, worker: int) -> None:
        """Begin at none: a worker is up, or has died."""
        self._counts[worker] = 0

    def are_starting(self) -> bool:
        """Whether a worker that began with the server is not up, and has not died."""
        return _STARTING in self._counts

    def of(self, worker: int) -> int:
        """How many a worker has."""
        return max(0, self._counts[worker])

    def has_more(self, worker: int) -> bool:
        """Whether another worker has clearly fewer than this one."""
        fewest = max(0, min(self._counts))
        return self._counts[worker] > fewest + fewest // _ALIKE


async def wait_for_others(counts: Counts, ends: Callable[[], bool]) -> None:
    """Wait until no worker is starting any more, this one is to end, or one of the others has to be thought to hang."""
    limit = time.monotonic() + _UP_SECONDS
    while counts.are_starting() and not ends() and time.monotonic() < limit:
        await asyncio.sleep(_LOOK_SECONDS)


class Acceptor:
    """Takes connections of a listening socket that several workers share."""

    def __init__(
        self, listening: socket.socket, counts: Counts, worker: int, make_protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        """Begin to take them, in the loop that runs. `gone` is to be called where one of them has ended."""
        self._listening, self._counts, self._worker, self._make = listening, counts, worker, make_protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._ended = False
        listening.setblocking(False)
        self._listen()

    def end(self) -> None:
        """Take no more."""
        self._ended = True
        self._loop.remove_reader(self._listening)

    def gone(self) -> None:
        """Count one less."""
        self._counts.add(self._worker, -1)

    def _listen(self) -> None:
        if not self._ended:
            self._loop.add_reader(self._listening, self._ready)

    def _ready(self) -> None:
        while not self._counts.has_more(self._worker):
            if not self._take():
                return
        self._wait(_LEAVE_SECONDS)

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Take one that nobody with fewer has taken, and listen again."""
        if not self._ended:
            self._listen()
            self._take()

    def _take(self) -> bool:
        """Take a connection; whether there was one."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError:  # it waits, and so do we: the socket would be told as ready again at once
            self._wait(_PAUSE_SECONDS)
            return False
        connection.setblocking(False)
        self._counts.add(self._worker, 1)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:  # the client has gone already
            connection.close()
            self.gone()
