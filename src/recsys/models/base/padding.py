"""Rows of unequal length as a few rectangular blocks, for batched products.

Users have from one rating to thousands. Rows of about the same length share a chunk and are padded to its longest;
a row too long for one block is a chunk of its own, cut into segments whose products are summed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# A chunk may waste this share of its cells on padding, or so many cells in all: below that, another chunk's kernel
# launches cost more than the padding.
WASTE_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are solved together: their codes, (rows,), and where their ratings are.

    `blocks` are of shape (rows, length) and hold positions among the ratings that were cut, -1 for padding. There is
    more than one only where the chunk is a single long row, whose segments they are.
    """

    rows: Ints
    blocks: tuple[Ints, ...]


def cut(
    codes: NDArray[np.integer], n_rows: int, *, cells: int, waste: int, most: int = 1 << 62
) -> tuple[list[Chunk], Ints]:
    """Chunks of at most `cells` ratings a block, the longest rows first, and the rows without a rating.

    Args:
        codes: the row of every rating, (n,).
        n_rows: how many rows there are.
        cells: the most ratings in a block, padding included; bounds the memory of a product.
        waste: padding that a chunk may hold however small it is.
        most: rows in a chunk.
    """
    counts = np.bincount(codes, minlength=n_rows)
    by_row = _sorted(codes)
    first = np.cumsum(counts) - counts
    rows = np.argsort(-counts, kind="stable")
    lengths = counts[rows]
    rated = int((lengths > 0).sum())
    chunks = []
    for start, stop in _runs(lengths[:rated], cells, waste, most):
        part, length = rows[start:stop], int(lengths[start])
        if length > cells:
            whole = by_row[first[part[0]] :][:length]
            chunks.append(Chunk(part, tuple(whole[None, at : at + cells] for at in range(0, length, cells))))
        else:
            steps = np.arange(length)
            places = first[part][:, None] + steps
            inside = steps < counts[part][:, None]
            chunks.append(Chunk(part, (np.where(inside, by_row[np.where(inside, places, 0)], -1),)))
    return chunks, rows[rated:]


def _sorted(codes: NDArray[np.integer]) -> Ints:
    """A stable argsort of codes from 0 on, in passes of 16 bits, for which NumPy has a radix sort."""
    order = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    if len(codes) and codes.max() > 0xFFFF:
        order = order[np.argsort((codes[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _runs(lengths: Ints, cells: int, waste: int, most: int) -> Iterator[tuple[int, int]]:
    """Where to cut rows that are sorted by falling length; a row longer than a block stays alone."""
    start = 0
    while start < len(lengths):
        longest = int(lengths[start])
        fitting = min(len(lengths) - start, most, max(1, cells // longest))
        size = np.arange(1, fitting + 1)
        padding = np.cumsum(longest - lengths[start : start + fitting])
        fits = padding <= np.maximum(waste, WASTE_SHARE * longest * size)
        stop = start + (fitting if fits.all() else int(np.argmin(fits)))
        yield start, stop
        start = stop
