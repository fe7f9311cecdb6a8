"""A step that is done once, or again and again as a service."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def repeat(work: Callable[[], Result], every: float | None) -> Result:
    """Do the work, and where `every` says so, again that many seconds after it last began; ends by a stop only.

    What fails at the first round ends it. Later, whatever goes wrong (a registry that is down, a disk that is full) is
    told, and the next round comes all the same. Nothing is kept between two rounds: what was done is on the record of
    MLflow, so that a restart forgets nothing and several services may run side by side.
    """
    started = time.monotonic()
    done = work()
    while every is not None:
        time.sleep(max(0.0, every - (time.monotonic() - started)))
        started = time.monotonic()
        try:
            done = work()
        except Exception as error:  # of MLflow, SQLAlchemy, the disk, or a version that cannot be loaded
            reason = str(error).partition("[SQL:")[0].strip().partition("\n")[0][:300]
            print(
                f"note: this look found nothing ({type(error).__name__}: {reason}); the next one is at its time",
                flush=True,
            )
    return done
