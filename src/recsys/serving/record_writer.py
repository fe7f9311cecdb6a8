"""A process beside a worker that writes its record, at lower priority: the worker's requests never wait for it.

Questions come on standard input, whose end is the end of the worker, however it died. What was asked is then done
still.
"""

import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from recsys.serving.record_table import Row, Table, WriteError

_NICE = 10  # beside busy workers it has a tenth of a core, which is several times what their lists take
_SIZE = 8  # bytes that say how long what follows is
_PACKAGES = str(Path(__file__).resolve().parents[2])


class WriterProcess:
    """The table in the hands of another process, which is started when it is first needed, and again where it ended.

    What a process that was killed had been asked is not known to be written: asked again, it counts once.
    """

    def __init__(self, path: Path) -> None:
        """Take the file of the feedback."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none yet."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, which makes the table where there is none. Raises WriteError."""
        self._ask([])

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows; one whose request is there counts once. Raises WriteError."""
        self._ask(list(rows))

    def prune(self, before: float, most: int) -> int:
        """Delete at most so many rows that are older than a moment; how many there were. Raises WriteError."""
        return self._ask((before, most))

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            assert self._process.stdin
            assert self._process.stdout
            with suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._process = None

    def _ask(self, question: Any) -> int:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        try:
            process = self._process = self._process or _start(self._path)
            assert process.stdin
            assert process.stdout
            _send(process.stdin, question)
            answer = _receive(process.stdout)
        except (OSError, EOFError) as error:
            self.close()
            raise WriteError(f"the process that writes the record has ended ({type(error).__name__})") from error
        if isinstance(answer, str):
            raise WriteError(answer)
        return int(answer)


def _start(path: Path) -> "subprocess.Popen[bytes]":
    places = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "recsys.serving.record_writer", str(path)],  # no package is needed but ours
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": places},
    )


def _send(file: IO[bytes], content: Any) -> None:
    packed = marshal.dumps(content)
    file.write(len(packed).to_bytes(_SIZE, "little") + packed)
    file.flush()


def _receive(file: IO[bytes]) -> Any:
    """What was sent; raises EOFError at the end."""
    size = int.from_bytes(_exactly(file, _SIZE), "little")
    return marshal.loads(_exactly(file, size))


def _exactly(file: IO[bytes], size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise EOFError
    return found


def main() -> None:
    """Do what is asked until the worker ends."""
    for number in (signal.SIGTERM, signal.SIGINT):  # may reach all processes of a server: the worker has rows yet
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    table = Table(Path(sys.argv[1]))
    with suppress(EOFError, BrokenPipeError):
        while True:
            _send(sys.stdout.buffer, _done(table, _receive(sys.stdin.buffer)))
    table.close()


def _done(table: Table, question: Any) -> int | str:
    """How many rows it was, or what is wrong."""
    try:
        if isinstance(question, tuple):
            return table.prune(*question)
        table.add(question)
        return len(question)
    except WriteError as error:
        return str(error)


if __name__ == "__main__":
    main()
