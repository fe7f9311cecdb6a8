"""What a person sees of a long computation: one line of the terminal, which is gone when it is over.

Nothing is written where standard error is no terminal.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steps.support.progress import clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN = {"validation_auc": "validation AUC", "validation_rmse": "validation RMSE", "train_rmse": "training RMSE"}
_RENEWED_A_SECOND = 4

_position = ""


class Stage:
    """A computation that is under way."""

    def __init__(self, label: str, shown: "tuple[Progress, TaskID] | None") -> None:
        self._label, self._shown = label, shown
        self._first: tuple[int, float] | None = None

    def report(self, number: int, metrics: Mapping[str, float], left: int | None = None) -> None:
        """Say how far it is: an epoch or a sweep, the first measure of it that people ask for, and the time left.

        `left` rounds come at most, at the pace so far; None: nobody knows.
        """
        now = time.monotonic()
        self._first = self._first or (number, now)
        since = number - self._first[0]
        seconds = None if left is None or since < 1 else left * (now - self._first[1]) / since
        measured = next((f", {text} {metrics[name]:.4f}" for name, text in _SHOWN.items() if name in metrics), "")
        remaining = "" if seconds is None else f", at most {clock(seconds)} of rounds left"
        self._show(f"round {number}{measured}{remaining}")

    def begin(self, what: str) -> None:
        """Say what comes after the rounds."""
        self._show(what)

    def _show(self, text: str) -> None:
        if self._shown is not None:
            progress, task = self._shown
            progress.update(task, description=f"{self._label}, {text}")


def set_position(number: int, of: int) -> None:
    """Say which step of several the stages from here on belong to."""
    global _position
    _position = f"step {number} of {of}: "


@contextmanager
def stage(label: str) -> Iterator[Stage]:
    """Show on a terminal what is computed, how far it is and for how many seconds, until the block ends."""
    label = _position + label
    if not sys.stderr.isatty():
        yield Stage(label, None)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn("line"), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=_RENEWED_A_SECOND
    ) as progress:
        yield Stage(label, (progress, progress.add_task(label, total=None)))
