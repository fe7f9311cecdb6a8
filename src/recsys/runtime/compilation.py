"""Loops that Numba compiles, kept in the user's cache folder."""

import functools
import hashlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import codegen
from numpy.typing import NDArray
from platformdirs import user_cache_path

# Sums may be computed in any order, so that one instruction adds many numbers; NaN and infinity stay what they are.
_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
LANE = 16
"""Numbers of 4 bytes in a line of the processor's cache: tables whose width is a multiple of it have no rest."""
TILE = 8 if "+avx512f" in codegen.get_host_cpu_features() else 4
"""Rows of a tile of `lines.add_products`, whose sums fit into the processor's registers."""

_STAMP = re.compile("[0-9a-f]{16}")
_UNUSED_SECONDS = 30 * 86_400

part_of_loop = numba.njit(fastmath=_FAST_MATH, error_model="numpy")
"""Decorates a function that a compiled loop calls."""


def compile_loop(function: Callable[..., Any], *example: object) -> Callable[..., Any]:
    """The function, compiled for arguments like the example's, or read from the cache folder, and called once.

    It runs on one thread and without the interpreter's lock, so that a heartbeat goes on meanwhile. Where the cache
    folder cannot be written, or holds what cannot be read, it is compiled for this process alone.
    """
    try:
        return _compile(function, example, is_cached=True)
    except Exception:  # whatever is wrong with a cache; what is wrong with the code is raised again below
        return _compile(function, example, is_cached=False)


def aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Zeros that begin where a line of the cache does. NumPy's may begin anywhere, and then a LANE is in two lines."""
    size = math.prod(shape)
    room = np.zeros(size + LANE, np.float32)
    first = -(room.ctypes.data // room.itemsize) % LANE
    return room[first : first + size].reshape(shape)


def get_ready() -> None:
    """Have Numba take in what it knows of Python and NumPy: 0.4 s, for a process that forks others that compile."""
    numba.njit("void()")(_do_nothing)


def _do_nothing() -> None:
    """What is compiled to get ready."""


def available_threads() -> int:
    """Threads for loops side by side: one a core that this process may use, or as NUMBA_NUM_THREADS says."""
    return int(numba.config.NUMBA_NUM_THREADS)


@functools.cache
def _stamp() -> str:
    """A digest of what loops are made of beside their own file: that alone Numba looks at."""
    parts = Path(__file__), Path(__file__).with_name("lines.py")
    return hashlib.blake2b(b"".join(part.read_bytes() for part in parts), digest_size=8).hexdigest()


@functools.cache
def _folder(chosen: Path) -> Path:
    """Where these loops are kept, marked as used; as it is made, those of other releases unused for a month go.

    A process that still uses one of those has read what it runs, and compiles anew what it has not.
    """
    folder = chosen / _stamp()
    with suppress(OSError):  # it cannot be written, or another process is at it
        if folder.exists():
            os.utime(folder)
            return folder
        folder.mkdir(parents=True)
        for other in chosen.iterdir():
            if _STAMP.fullmatch(other.name) and other.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def _compile(function: Callable[..., Any], example: tuple[object, ...], *, is_cached: bool) -> Callable[..., Any]:
    before = numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES
    # This folder or none: else Numba writes beside the source.
    chosen = Path(before[0]) if before[0] else user_cache_path("recsys") / "numba"  # NUMBA_CACHE_DIR
    numba.config.CACHE_DIR = str(_folder(chosen))
    numba.config.CACHE_LOCATOR_CLASSES = "UserProvidedCacheLocator"
    try:
        compiled: Callable[..., Any] = numba.njit(
            fastmath=_FAST_MATH, error_model="numpy", nogil=True, cache=is_cached
        )(function)
    finally:
        numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = before
    compiled(*example)
    return compiled
