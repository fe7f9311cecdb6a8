"""A writer of the record in a thread of this process, where a server has one in a process of its own."""

import os
import threading
from pathlib import Path
from typing import IO, Any

from recsys.serving import record_writer
from recsys.serving.record import Recorder
from recsys.serving.record_table import Table


class WriterThread:
    def __init__(self, path: Path, retention: float = 90.0) -> None:
        asked, self.asked = _pipe()
        self.said, said = _pipe()

        def write() -> None:
            with asked, said:
                record_writer.write(asked, said, Table(path), retention)

        self._thread = threading.Thread(target=write, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join()
        self.said.close()


class Recording(Recorder):
    """A recorder that a thread tells to hand over, as a server's loop does."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        super().close()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            self.turn()


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    read, written = os.pipe()
    return os.fdopen(read, "rb", buffering=0), os.fdopen(written, "wb", buffering=0)
