"""What a person sees of a search: a line a trial, and on a terminal one line that changes.

Other steps show theirs by Rich (stages.py). Here another process of the search may write to the terminal, the time left
depends on the search's limit, and the line has to end with what matters most when it is cut.
"""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from recsys.settings import to_text

if TYPE_CHECKING:
    from recsys.tuning.search import SearchProgress
    from recsys.tuning.trials import EndedTrial

_CLEAR = "\r\x1b[K"
_RENEW_SECONDS = 0.5


class ProgressDisplay:
    """Prints the progress of a search whose value is `metric`.

    A worker that shares the terminal with the process that started it leaves the line that changes to that one.
    """

    def __init__(self, metric: str, until: float | None = None, *, shared: bool = False) -> None:
        self._metric = metric.upper() if metric == "auc" else metric.replace("_", " ")
        self._until = until
        self._terminal = sys.stdout.isatty()
        self._shared = shared
        self._started = time.monotonic()
        self._first: int | None = None
        self._shown = 0.0

    def trial(self, trial: "EndedTrial", error: str | None, seconds: float) -> None:
        """A trial has ended."""
        state = trial.state.name
        value = f"validation {self._metric} {trial.value:.4f}" if state == "COMPLETE" else state.lower()
        tried = settings(trial.params) or "the defaults"
        reason = f": {error}" if error else ""
        clear = _CLEAR if self._terminal else ""
        print(f"{clear}trial {trial.number}: {value} ({seconds:.1f} s; {tried}){reason}", flush=True)

    def status(self, progress: "Callable[[], SearchProgress]") -> None:
        """Renew the line of a terminal, not too often; elsewhere do not even ask where the search stands."""
        if not self._terminal or self._shared or time.monotonic() - self._shown < _RENEW_SECONDS:
            return
        self._shown = time.monotonic()
        # Only the last row of a line that wraps can be cleared.
        print(f"{_CLEAR}{_cut(self.line(progress()), shutil.get_terminal_size().columns - 1)}", end="", flush=True)

    def end(self) -> None:
        """Leave the terminal with an empty line."""
        if self._terminal and not self._shared:
            print(_CLEAR, end="", flush=True)

    def line(self, progress: "SearchProgress") -> str:
        """Where the search stands, in one line."""
        done = progress.done + progress.pruned
        of = f" of {progress.target}" if progress.target is not None else ""
        parts = [f"{done}{of} trials", f"{progress.pruned} pruned", f"{progress.failed} failed"]
        left = self._left(done, progress.target)
        if left is not None:
            parts.append(f"{clock(left)} left")
        if progress.best is not None:
            parts.append(f"best {progress.best.value:.4f} ({settings(progress.best.params) or 'the defaults'})")
        return ", ".join(parts)

    def _left(self, done: int, target: int | None) -> float | None:
        """Seconds to the end: by the pace so far, and not beyond the time limit."""
        if self._first is None:
            self._first = done
        found = [] if self._until is None else [max(0.0, self._until - time.time())]
        since = done - self._first
        if target is not None and since:
            found.append((target - done) * (time.monotonic() - self._started) / since)
        return min(found, default=None)


def settings(params: Mapping[str, object]) -> str:
    """Parameters in short."""
    return ", ".join(f"{key}={_short(value)}" for key, value in params.items())


def _short(setting: object) -> str:
    return f"{setting:.4g}" if isinstance(setting, float) else to_text(setting)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def clock(seconds: float) -> str:
    """A duration in a few characters."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
