"""A step that is done once, or again and again as a service."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from recsys.errors import InputError

Result = TypeVar("Result")


def repeat(work: Callable[[], Result], every: float | None, *, lives_on: bool = False) -> Result:
    """Do the work, and where `every` says so, again that many seconds after it last began.

    Nothing is kept between two rounds: what was done is on the record of MLflow, so that a restart forgets nothing and
    several services may run side by side.

    Args:
        lives_on: a round that fails is told on standard error, and the next one comes all the same.
    """
    while True:
        started = time.monotonic()
        try:
            done = work()
            if every is None:
                return done
        except Exception as error:
            if every is None or not lives_on:
                raise
            name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            print(f"error: {name}{error}; the next round is in {every:.0f} s", file=sys.stderr, flush=True)
        time.sleep(max(0.0, every - (time.monotonic() - started)))
