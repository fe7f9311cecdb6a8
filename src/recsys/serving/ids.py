"""Ids in one block of memory: sorted, found by halving, and shared by the processes that map it."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from recsys.arrays import Array

_REMEMBERED = 1 << 14  # ids, of which few are asked for most


class IdTable:
    """Ids by their code, the position among all in the order of their code points."""

    def __init__(self, content: Array, ends: Array) -> None:
        """Take the ids in UTF-8 one behind the other, and where each begins, with the end of the last: (n + 1,)."""
        views = memoryview(content), memoryview(ends)  # type: ignore[arg-type]  # an array is a buffer
        self._size = len(ends) - 1
        self._name = lru_cache(_REMEMBERED)(partial(_read, *views))
        self._code = lru_cache(_REMEMBERED)(partial(_look_up, *views))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, code: int) -> str:
        return self._name(code)

    def names(self, codes: Array) -> list[str]:
        """The ids of codes, (n,)."""
        return list(map(self._name, codes.tolist()))

    def find(self, name: str) -> int:
        """The code of an id, -1 for an unknown one."""
        return self._code(name)


def _read(content: memoryview, ends: memoryview, code: int) -> str:
    return bytes(content[ends[code] : ends[code + 1]]).decode()


def _look_up(content: memoryview, ends: memoryview, name: str) -> int:
    try:
        wanted = name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return -1
    low, high = 0, len(ends) - 1
    while low < high:  # the order of UTF-8's bytes is that of code points
        middle = (low + high) // 2
        if bytes(content[ends[middle] : ends[middle + 1]]) < wanted:
            low = middle + 1
        else:
            high = middle
    if low < len(ends) - 1 and bytes(content[ends[low] : ends[low + 1]]) == wanted:
        return low
    return -1


def pack_ids(ids: Sequence[str]) -> tuple[Array, Array]:
    """The two arrays of an IdTable, from ids that are sorted and each there once; titles need neither."""
    encoded = [name.encode() for name in ids]
    ends = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=ends[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), ends
