"""Code that a stop must not cut off says so: a stop that arrives inside `uninterrupted` waits for the block's end.

A signal handler of Python runs in the main thread, between any two lines, and an exception that it raises can leave a
transaction open or lose the id of a run that was just made. Nothing here installs a signal handler: a program's entry
point does, and hands its stop to `interrupt`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _MainThread:
    """What holds for the main thread, the only one in which signal handlers run."""

    is_guarded = False
    pending: Callable[[], None] | None = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a stop wait until the block, or the decorated function, has ended; blocks may be nested.

    In other threads than the main one it does nothing, as no stop arrives there. At the end of the outermost block the
    waiting stop is carried out, so the block may end with the exception that the stop raises: whatever has to be kept
    of the block's work is to be kept inside it.
    """
    if not _is_main_thread():
        yield
        return
    before, _MainThread.is_guarded = _MainThread.is_guarded, True
    try:
        yield
    finally:
        _MainThread.is_guarded = before
        _carry_out_pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a stop arrive inside this block although it stands inside `uninterrupted`.

    For a resource whose opening and closing must not be cut off while its use may be.
    """
    if not _is_main_thread():
        yield
        return
    before, _MainThread.is_guarded = _MainThread.is_guarded, False
    try:
        _carry_out_pending()
        yield
    finally:
        _MainThread.is_guarded = before


def interrupt(stop: Callable[[], None], *, waits: bool = True) -> bool:
    """Stop the main thread; to be called there, by a signal handler. Returns False where the stop has to wait.

    Args:
        stop: raises the exception that ends the work.
        waits: False where the stop has waited long enough: it is carried out inside `uninterrupted` too.
    """
    if waits and _MainThread.is_guarded:
        _MainThread.pending = stop
        return False
    _MainThread.pending = None
    stop()
    return True


def is_guarded() -> bool:
    """Whether this code runs inside `uninterrupted`, or in a thread in which no stop can arrive."""
    return _MainThread.is_guarded or not _is_main_thread()


def is_stop(error: BaseException | None) -> bool:
    """Whether an error is a stop by KeyboardInterrupt, or came of one: a library may make another error of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _carry_out_pending() -> None:
    if _MainThread.pending is not None and not _MainThread.is_guarded:
        stop, _MainThread.pending = _MainThread.pending, None
        stop()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
