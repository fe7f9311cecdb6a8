"""Waiting for what another process or thread does, as long as a machine twenty times slower may need."""

import threading
import time
from collections.abc import Callable

HANG_SECONDS = 1800
"""After so long something hangs. Nothing that goes well takes it, on any machine: no test measures time by it."""


def wait(happened: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Wait until it has happened; `what` names it, or is called for what to show where it never does."""
    limit = time.monotonic() + HANG_SECONDS
    while not happened():
        if time.monotonic() > limit:
            raise AssertionError(f"after {HANG_SECONDS} s: {what if isinstance(what, str) else what()} did not happen")
        time.sleep(0.05)


class Background:
    """Work in a thread; its exception is raised where it is waited for."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Begin at once."""
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(work,))
        self.thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        """Wait for its end."""
        self.thread.join(HANG_SECONDS)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
