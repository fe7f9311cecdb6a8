"""Records sorted into files by a key, so that all of one key can be looked at without loading the others.

The files are scratch: they have no name, nobody else sees them, and they end with their closing. Where there is memory
enough they are buffers in memory.
"""

import tempfile
from collections.abc import Iterator
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys.arrays import Array
from recsys.data.splits import Hashes

ScratchFile = BytesIO | FileIO


class Buckets:
    """2 ** bits scratch files; the first bits of a 64-bit key say which file a record goes to.

    Read in turn, bucket after bucket, the records come in the order of those bits.
    """

    def __init__(self, folder: Path | None, fields: list[tuple[str, str]], bits: int) -> None:
        """Open the files.

        Args:
            folder: where there is room on disk; None: in memory.
            fields: names and NumPy types of a record's columns.
        """
        self._dtype = np.dtype(fields)
        self._shift = np.uint64(64 - bits)
        self._files = [scratch_file(folder) for _ in range(1 << bits)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def has(self, field: str) -> bool:
        """Whether a record has such a column."""
        return field in (self._dtype.names or ())

    def add(self, keys: Hashes, **columns: Array) -> None:
        """Add records; keys and columns of shape (n,). Within a bucket they keep their order."""
        records = np.empty(len(keys), self._dtype)
        for name, column in columns.items():
            records[name] = column
        if len(self._files) == 1:
            write_array(self._files[0], records)
            return
        bucket = (keys >> self._shift).astype(np.uint16)
        records = records[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            if end > start:
                write_array(file, records[start:end])

    def drain(self) -> Iterator[Array]:
        """The records of each bucket, as a structured array; its file is closed."""
        for file in self._files:
            yield read_array(file, self._dtype, 0, file.seek(0, 2) // self._dtype.itemsize)
            file.close()


def bits_for(records: int, most: int) -> int:
    """Bits for buckets of at most about `most` records, from 0 to 9: more files than that are not open at once."""
    return int(np.clip(np.ceil(np.log2(max(1, records) / most)), 0, 9))


def scratch_file(folder: Path | None) -> ScratchFile:
    """An empty file without a name in a folder, or a buffer in memory where there is none."""
    return BytesIO() if folder is None else tempfile.TemporaryFile(dir=folder, buffering=0)


def write_array(file: ScratchFile, array: Array) -> None:
    """Append an array's bytes; raises OSError where there is no room, which `ndarray.tofile` may not notice."""
    left = np.ascontiguousarray(array).view(np.uint8).data.cast("B")
    while left:
        left = left[file.write(left) :]


def read_array(file: ScratchFile, dtype: np.dtype[Any], start: int, size: int) -> Array:
    """`size` elements from the one with the number `start` on: shape (size,)."""
    array = np.empty(size, dtype)
    file.seek(start * dtype.itemsize)
    left = array.view(np.uint8).data.cast("B")
    while left:
        left = left[file.readinto(left) or 0 :]
    return array
