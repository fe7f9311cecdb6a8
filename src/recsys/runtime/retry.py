"""Calls that are made again while what goes wrong may pass by itself."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import tenacity

from recsys.runtime.interruption import uninterrupted

P = ParamSpec("P")
T = TypeVar("T")


def retry_on(may_pass: Callable[[BaseException], bool], seconds: float) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: the call is made again, ever more slowly, for `seconds` at most; the last error is raised.

    An attempt is not cut off by a stop; the pause between two attempts is.

    Args:
        may_pass: whether the same call may succeed after this error.
    """
    again = tenacity.retry(
        retry=tenacity.retry_if_exception(may_pass),
        # Random: several that met in a deadlock should not meet again.
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=3),
        stop=tenacity.stop_before_delay(seconds),
        reraise=True,
    )

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        return again(uninterrupted()(call))

    return decorate
