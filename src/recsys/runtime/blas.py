"""Threads of the libraries behind NumPy's and SciPy's linear algebra."""

from contextlib import AbstractContextManager, nullcontext

_SHARED_FROM = 8_001  # rows of a matrix: one thread inverts 8,000 rows in 6 s


def threads_for(rows: int) -> AbstractContextManager[object]:
    """One thread within the block for a square matrix that is small, as many as there are for a larger one.

    Where other programs use the cores too, threads that share a small product spend ten times its cost waiting for each
    other.
    """
    return nullcontext() if rows >= _SHARED_FROM else one_thread()


def one_thread() -> AbstractContextManager[object]:
    """One thread within the block: sums then come out alike, however many cores there are."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")  # type: ignore[no-any-return]
