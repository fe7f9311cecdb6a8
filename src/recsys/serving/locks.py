"""Turns of processes that write one file."""

import fcntl
from typing import IO


class Locked:
    """Holds a file's lock: processes that write take turns without SQLite's waiting by sleeping."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
