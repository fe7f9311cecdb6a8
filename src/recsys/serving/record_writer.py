"""The program (`main`) that writes a worker's record, beside it and at lower priority: requests never wait for it.

Lists come on standard input, a message at a time, and are committed some time later, many together; how many messages
were is said on standard output. The end of the input is the end of the worker, however it died: what came is then
written still.
"""

import marshal
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from recsys.serving.record_table import Message, Table, WriteError

_NICE = 5  # beside busy workers it has a quarter as much of a core, which is several times what their lists take
# A commit costs readers of the file what they remember of it, and each message that wakes this process may push a
# worker out: so long what comes waits in the pipe, in which it has room.
_COMMIT_SECONDS = 0.4
_MOST_MESSAGES, _MOST_ROWS = 16, 500  # about, a commit, so that feedback never waits long for its turn
_PRUNE_SECONDS = 60.0
_MOST_PRUNED = 5_000  # a commit
_DAY = 86_400
_SIZE = 8  # bytes that say how long the rest of a message is


def packed(content: Any) -> bytes:
    """A message."""
    found = marshal.dumps(content)
    return len(found).to_bytes(_SIZE, "little") + found


def send(file: IO[bytes], content: Any) -> None:
    """Send a message through a pipe, and wait for room there; raises OSError where nobody reads it."""
    left = memoryview(packed(content))
    while left:
        left = left[file.write(left) :]


def receive(file: IO[bytes]) -> Any:
    """The next message of a pipe; raises EOFError at its end."""
    # Both ends of the pipe are this server's, and the same Python.
    return marshal.loads(_exactly(file, int.from_bytes(_exactly(file, _SIZE), "little")))  # nosec B302


def _exactly(file: IO[bytes], size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = file.read(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def is_ready(file: IO[bytes], seconds: float = 0.0) -> bool:
    """Whether there is something to receive, or the end, before so many seconds have passed."""
    waits = select.poll()  # not select, which has no descriptors above 1,024
    waits.register(file, select.POLLIN)
    return bool(waits.poll(1000 * seconds))


def ends(file: IO[bytes], seconds: float) -> bool:
    """Whether a pipe's other end is closed before so many seconds have passed; what can be received wakes nobody."""
    waits = select.poll()
    waits.register(file, 0)
    return bool(waits.poll(1000 * seconds))


def write(asked: IO[bytes], said: IO[bytes], table: Table, retention: float) -> None:
    """Write what is asked until its end; a fault of the file is the end too.

    Args:
        asked: messages of lists.
        said: is sent 0 once the tables are there, then of each commit how many messages it wrote, in the order in which
            they came; and, last, what is wrong.
        retention: days after which a list is deleted.
    """
    writing = _Writing(said, table, retention)
    with suppress(BrokenPipeError):
        try:
            writing.commit([])
            writing.run(asked)
        except WriteError as error:
            send(said, str(error))
        finally:
            table.close()


class _Writing:
    def __init__(self, said: IO[bytes], table: Table, retention: float) -> None:
        self._said, self._table, self._retention = said, table, retention
        self._pruned = -_PRUNE_SECONDS

    def run(self, asked: IO[bytes]) -> None:
        ended, is_behind = False, False
        while not ended:
            if not is_behind:
                ends(asked, _COMMIT_SECONDS)
            held, ended = self._receive(asked)
            is_behind = _is_full(held)
            if held:
                self.commit(held)
            self._prune()
            if not held and not ended:
                is_ready(asked, _PRUNE_SECONDS)

    def _receive(self, asked: IO[bytes]) -> tuple[list[Message], bool]:
        """What has come, as far as it goes into one commit; and whether that is all there will be."""
        held: list[Message] = []
        try:
            while not _is_full(held) and is_ready(asked):
                held.append(receive(asked))
        except EOFError:
            return held, True
        return held, False

    def commit(self, messages: Sequence[Message]) -> None:
        self._table.add(messages)
        with suppress(BrokenPipeError):  # the worker is gone: the rest is written still
            send(self._said, len(messages))

    def _prune(self) -> None:
        """Delete what is older than the retention, some at a time."""
        if time.monotonic() - self._pruned < _PRUNE_SECONDS:
            return
        if not self._table.prune(time.time() - self._retention * _DAY, _MOST_PRUNED):
            self._pruned = time.monotonic()


def _is_full(messages: Sequence[Message]) -> bool:
    """Whether messages are enough for a commit."""
    return len(messages) >= _MOST_MESSAGES or sum(len(rows) for _, rows in messages) >= _MOST_ROWS


def main() -> None:
    """Write until the worker ends."""
    for number in (signal.SIGTERM, signal.SIGINT):  # may reach all processes of a server: the worker has rows yet
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    if hasattr(os, "SCHED_BATCH"):  # Linux: what it is sent does not make it push a worker out at once
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with os.fdopen(0, "rb", buffering=0) as asked, os.fdopen(1, "wb", buffering=0) as said:
        write(asked, said, Table(Path(sys.argv[1])), float(sys.argv[2]))
    os._exit(0)  # its worker may wait for its end
