"""Vocabularies: every id of a user or of an item has a code, and every code an id."""

from collections.abc import Iterator
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from recsys.arrays import Codes, Flags, Ids

if TYPE_CHECKING:
    import pyarrow as pa


class Vocabulary:
    """The ids of users or of items, each once; the code of an id is its position, from 0."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def codes(self, ids: Ids) -> Codes:
        """The code of each id, -1 for an unknown one: shape (n,)."""
        return np.fromiter(map(self._codes.get, ids.tolist(), repeat(-1)), np.int32, len(ids))

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.ids.tolist())}


class VocabularyBuilder:
    """Gives every id that is read a provisional code, in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, column: "pa.DictionaryArray") -> Codes:
        """The provisional code of every row's id, -1 where it is missing."""
        codes, known = self._codes, np.empty(len(column.dictionary) + 1, np.int32)
        for position, text in enumerate(texts_of(column)):
            name = text.strip()
            known[position] = codes.setdefault(name, len(codes)) if name else -1
        return known[codes_of(column)]

    def finish(self, used: Flags) -> tuple[Vocabulary, Codes]:
        """The vocabulary of the ids used, in codepoint order, and for every provisional code the one there, or -1.

        Args:
            used: whether an id is used, by provisional code: shape (n,).
        """
        names = list(self._codes)
        ids = sorted(name for name, is_used in zip(names, used, strict=True) if is_used)
        vocabulary = Vocabulary(np.array(ids, object))
        return vocabulary, vocabulary.codes(np.array(names, object))


def texts_of(column: "pa.DictionaryArray") -> Iterator[str]:
    """The texts of the dictionary, and at its end, where the code -1 points, "" for rows that are null."""
    for start in range(0, len(column.dictionary), 1 << 16):
        yield from (text or "" for text in column.dictionary.slice(start, 1 << 16).to_pylist())
    yield ""


def codes_of(column: "pa.DictionaryArray") -> Codes:
    """Where each row points into the dictionary, -1 where it is null."""
    codes: Codes = column.indices.fill_null(-1).to_numpy()
    return codes
