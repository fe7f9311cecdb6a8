"""Rows of different lengths, padded into a few rectangular blocks, so that matrix products can be batched.

One user has a single rating, another has thousands. Rows of similar length are put together in a chunk and padded to
the longest of them. A row that is too long for one block is a chunk of its own: it is cut into segments, and the
products of the segments are summed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# The largest share of a chunk's cells that may be padding. A small chunk may exceed it, up to `waste` cells: there, one
# more chunk would cost more (in kernel launches) than the padding does.
WASTE_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are solved together: their codes, shape (rows,), and the positions of their ratings.

    Each block has the shape (rows, length). It holds positions in the array of ratings, and -1 for padding. There are
    several blocks only if the chunk is a single long row; they are its segments.
    """

    rows: Ints
    blocks: tuple[NDArray[np.int32], ...]


def make_chunks(
    codes: NDArray[np.integer], n_rows: int, *, cells: int, waste: int, most: int = 1 << 62
) -> tuple[list[Chunk], Ints]:
    """The chunks, the longest rows first, and the codes of the rows that have no rating.

    Args:
        codes: the row of each rating, shape (n,).
        n_rows: the number of rows.
        cells: the largest number of cells in a block, padding included; it limits the memory of a product.
        waste: the number of padded cells that any chunk may have, however small it is.
        most: the largest number of rows in a chunk.
    """
    counts = np.bincount(codes, minlength=n_rows)
    by_row = stable_argsort(codes).astype(np.int32)
    first = np.cumsum(counts) - counts
    rows = np.argsort(-counts, kind="stable")
    lengths = counts[rows]
    rated = int((lengths > 0).sum())
    chunks = []
    for start, stop in _chunk_bounds(lengths[:rated], cells, waste, most):
        part, length = rows[start:stop], int(lengths[start])
        if length > cells:
            whole = by_row[first[part[0]] :][:length]
            chunks.append(Chunk(part, tuple(whole[None, at : at + cells] for at in range(0, length, cells))))
        else:
            steps = np.arange(length)
            positions = first[part][:, None] + steps
            block = by_row.take(positions, mode="clip")
            block[steps >= counts[part][:, None]] = -1
            chunks.append(Chunk(part, (block,)))
    return chunks, rows[rated:]


def stable_argsort(codes: NDArray[np.integer]) -> Ints:
    """A stable argsort of codes of at least 0. In passes of 8 or 16 bits, for which NumPy has a radix sort."""
    if len(codes) and codes.max() <= 0xFF:
        return np.argsort(codes.astype(np.uint8), kind="stable")
    order = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    if len(codes) and codes.max() > 0xFFFF:
        order = order[np.argsort((codes[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _chunk_bounds(lengths: Ints, cells: int, waste: int, most: int) -> Iterator[tuple[int, int]]:
    """The first row of each chunk and the row after its last. Rows come in order of decreasing length."""
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
