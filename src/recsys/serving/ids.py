"""Ids in one block of memory: sorted, found by halving, and shared by the processes that map it."""

from collections.abc import Sequence

import numpy as np

from recsys.arrays import Array


class IdTable:
    """Ids by their code, the position among all in the order of their code points."""

    def __init__(self, content: Array, ends: Array) -> None:
        """Take the ids in UTF-8 one behind the other, and where each begins, with the end of the last: (n + 1,)."""
        self._content = memoryview(content)  # type: ignore[arg-type]  # an array is a buffer
        self._ends = memoryview(ends)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, code: int) -> str:
        return bytes(self._content[self._ends[code] : self._ends[code + 1]]).decode()

    def find(self, name: str) -> int:
        """The code of an id, -1 for an unknown one."""
        try:
            wanted = name.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
            return -1
        content, ends = self._content, self._ends
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
