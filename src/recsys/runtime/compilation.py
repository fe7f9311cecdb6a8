"""Loops that Numba compiles, kept in the user's cache folder."""

from collections.abc import Callable
from typing import Any

import numba
from platformdirs import user_cache_path

# Sums may be computed in any order, so that one instruction adds many numbers; NaN and infinity stay what they are.
_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
LANE = 16
"""Numbers of 4 bytes in a line of the processor's cache: tables whose width is a multiple of it have no rest."""


def compile_loop(function: Callable[..., Any], *example: object) -> Callable[..., Any]:
    """The function, compiled for arguments like the example's, or read from the cache folder, and called once.

    It runs on one thread and without the interpreter's lock, so that a heartbeat goes on meanwhile. Where the cache
    folder cannot be written, or holds what cannot be read, it is compiled for this process alone.
    """
    try:
        return _compile(function, example, is_cached=True)
    except Exception:  # whatever is wrong with a cache; what is wrong with the code is raised again below
        return _compile(function, example, is_cached=False)


def available_threads() -> int:
    """Threads for loops side by side: one a core that this process may use, or as NUMBA_NUM_THREADS says."""
    return int(numba.config.NUMBA_NUM_THREADS)


def _compile(function: Callable[..., Any], example: tuple[object, ...], *, is_cached: bool) -> Callable[..., Any]:
    before = numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES
    # This folder or none: else Numba writes beside the source. One that the user chose (NUMBA_CACHE_DIR) stays.
    numba.config.CACHE_DIR = before[0] or str(user_cache_path("recsys") / "numba")
    numba.config.CACHE_LOCATOR_CLASSES = "UserProvidedCacheLocator"
    try:
        compiled: Callable[..., Any] = numba.njit(
            fastmath=_FAST_MATH, error_model="numpy", nogil=True, cache=is_cached
        )(function)
    finally:
        numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = before
    compiled(*example)
    return compiled
