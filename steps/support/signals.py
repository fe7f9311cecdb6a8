"""What Ctrl-C and SIGTERM do: stop a step, and let a search end its running trial first."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from recsys.runtime import interruption

_SIGNALS = signal.SIGTERM, signal.SIGINT
_AGAIN_SECONDS = 0.5
_GUARDED_SECONDS = 5.0  # a server that does not answer must not keep a step from being stopped
_ONE_STOP_SECONDS = 2.0  # Ctrl-C under `mlflow run` comes twice: from the terminal, and from MLflow as SIGTERM


class StopSignals:
    """While open, SIGTERM and SIGINT raise KeyboardInterrupt in the main thread; `number` is that of the first one.

    Code that says so is finished first (recsys.runtime.interruption), for seconds at most, and the cleaning up that
    follows is not interrupted. One exception is not enough to stop: Python drops it in a destructor and in the callback
    of a weak reference, and a library may catch it. So it is raised again until one is on its way out of the block,
    which it leaves as KeyboardInterrupt although something on its way made another error of it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._heard: int | None = None
        self._overdue = False
        self._left = threading.Event()
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._drop
        for number in _SIGNALS:
            signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        sys.unraisablehook = self._unraisable
        if self.number is None:
            return
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # Python ends with a signal of its own after a KeyboardInterrupt in code given as text; this makes it forget.
        eval("None")  # nosec B307
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self._heard is None:
            self._heard = number
            threading.Thread(target=self._remind, daemon=True).start()
        if self.number is None or not interruption.is_stop(sys.exc_info()[1]):
            interruption.interrupt(self._raise, waits=not self._overdue)

    def _raise(self) -> NoReturn:
        self.number = self._heard
        raise KeyboardInterrupt

    def _remind(self) -> None:
        began = time.monotonic()
        while not self._left.wait(_AGAIN_SECONDS):
            self._overdue = self._overdue or time.monotonic() - began > _GUARDED_SECONDS
            signal.pthread_kill(threading.main_thread().ident or 0, self._heard or signal.SIGINT)

    def _drop(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Say nothing of a stop that was dropped: another follows."""
        if dropped.exc_type is not KeyboardInterrupt:
            self._unraisable(dropped)


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
        for number in _SIGNALS:
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
