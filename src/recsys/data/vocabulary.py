"""The vocabulary: every id of users or items has a code, and every code an id."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recsys.arrays import Codes, Flags, Ids


class Codebook:
    """Gives every id a code, in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, column: pa.DictionaryArray) -> Codes:
        """The code of every row's id, -1 where it is missing."""
        codes, known = self._codes, np.empty(len(column.dictionary) + 1, np.int32)
        for position, text in enumerate(texts_of(column)):
            name = text.strip()
            known[position] = codes.setdefault(name, len(codes)) if name else -1
        return known[codes_of(column)]

    def sorted(self, used: Flags) -> tuple[Codes, Ids]:
        """For every code the position of its id among the ids used, in codepoint order (-1: not used), and those."""
        names = list(self._codes)
        ids = sorted(name for name, is_used in zip(names, used, strict=True) if is_used)
        places = {name: place for place, name in enumerate(ids)}
        return np.array([places.get(name, -1) for name in names], np.int32), np.array(ids, object)


def texts_of(column: pa.DictionaryArray) -> Iterator[str]:
    """The texts of the dictionary, and at its end, where the code -1 points, "" for rows that are null."""
    for start in range(0, len(column.dictionary), 1 << 16):
        yield from (text or "" for text in column.dictionary.slice(start, 1 << 16).to_pylist())
    yield ""


def codes_of(column: pa.DictionaryArray) -> Codes:
    """Where each row points into the dictionary, -1 where it is null."""
    codes: Codes = column.indices.fill_null(-1).to_numpy()
    return codes
