"""Records sorted into files by a key, so that all of one key can be looked at without loading the others."""

from collections.abc import Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Self

import numpy as np

from recsys.arrays import Array
from recsys.data.splits import Hashes


class Buckets:
    """2 ** bits files in a folder; the first bits of a 64-bit key say which file a record goes to.

    Read in turn, bucket after bucket, the records come in the order of those bits.
    """

    def __init__(self, folder: Path, kinds: list[tuple[str, str]], bits: int) -> None:
        self._dtype = np.dtype(kinds)
        self._shift = np.uint64(64 - bits)
        self._paths = [folder / f"{number:04d}" for number in range(1 << bits)]
        self._stack = ExitStack()
        folder.mkdir()
        self._files = [self._stack.enter_context(path.open("wb", buffering=0)) for path in self._paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what was added stays."""
        self._stack.close()

    def add(self, keys: Hashes, **columns: Array) -> None:
        """Add records; keys and columns of shape (n,). Within a bucket they keep their order."""
        bucket = (keys >> self._shift).astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        records = np.empty(len(keys), self._dtype)
        for name, column in columns.items():
            records[name] = column[order]
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            if end > start:
                write_array(file, records[start:end])

    def drain(self) -> Iterator[Array]:
        """The records of each bucket, as a structured array; its file is removed."""
        self._stack.close()
        for path in self._paths:
            yield np.fromfile(path, self._dtype)
            path.unlink()


def write_array(file: FileIO, array: Array) -> None:
    """Append an array's bytes; raises OSError where there is no room, which `ndarray.tofile` may not notice."""
    left = np.ascontiguousarray(array).view(np.uint8).data.cast("B")
    while left:
        left = left[file.write(left) :]


def bits_for(records: int, most: int) -> int:
    """Bits for buckets of at most about `most` records, from 0 to 9: more files than that are not open at once."""
    return int(np.clip(np.ceil(np.log2(max(1, records) / most)), 0, 9))
