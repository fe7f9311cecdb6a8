"""Graceful stop of a search: the first Ctrl-C or SIGTERM lets the running trial end, the next one does not."""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

_ONE_STOP_SECONDS = 2.0  # Ctrl-C under `mlflow run` comes twice: from the terminal, and from MLflow as SIGTERM


class GracefulStop:
    """While open, the first signal only sets `asked`; the second does what the signal did before.

    Where a signal came, that is done at the end of the block too.
    """

    def __init__(self, message: str) -> None:
        self.asked = 0
        self._message = message
        self._since = 0.0
        self._parent = os.getppid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked and kind is None:
            self._pass_on(self.asked, None)

    def stopped(self) -> bool:
        """Whether a signal came."""
        return self.asked != 0

    def _hear(self, number: int, frame: FrameType | None) -> None:
        orphaned = os.getppid() != self._parent
        if self.asked and (orphaned or time.monotonic() - self._since > _ONE_STOP_SECONDS):
            self._pass_on(number, frame)
            return
        if self.asked:
            return
        self.asked, self._since = number, time.monotonic()
        if orphaned:
            self._pass_on(number, frame)
            return
        if self._message:
            print(self._message, file=sys.stderr, flush=True)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt
