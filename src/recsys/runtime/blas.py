"""Threads of the libraries behind NumPy's and SciPy's linear algebra."""

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_SHARED_FROM = 8_001  # rows of a matrix: one thread inverts 8,000 rows in 6 s


def threads_for(rows: int) -> AbstractContextManager[object]:
    """One thread within the block for a square matrix that is small, as many as there are for a larger one.

    Where other programs use the cores too, threads that share a small product spend ten times its cost waiting for each
    other.
    """
    return nullcontext() if rows >= _SHARED_FROM else one_thread()


def one_thread() -> AbstractContextManager[object]:
    """One thread within the block: sums then come out alike, however many cores there are."""
    return _libraries("scipy.linalg" in sys.modules).limit(limits=1, user_api="blas")  # type: ignore[no-any-return]


@cache
def _libraries(with_scipy: bool) -> "ThreadpoolController":
    """Those that this process has loaded: to look for them takes a hundredth of a second.

    Args:
        with_scipy: whether SciPy's, which is another one than NumPy's, is among them.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
