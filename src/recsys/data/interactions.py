"""Interactions: ratings as arrays of codes, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Array, Codes, Floats


@dataclass(frozen=True, eq=False)
class Interactions:
    """Ratings as arrays of shape (n,); users and items are row numbers of the dataset's id tables."""

    users: Codes
    items: Codes
    ratings: Floats
    timestamps: Floats | None = None

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: Array | slice) -> "Interactions":
        times = None if self.timestamps is None else self.timestamps[rows]
        return Interactions(self.users[rows], self.items[rows], self.ratings[rows], times)

    def joined(self, other: "Interactions") -> "Interactions":
        """These rows, then the other's."""
        return join([self, other])


NO_ROWS = Interactions(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))


def join(pieces: Sequence[Interactions]) -> Interactions:
    """The rows of all, one piece after the other; of at least one."""
    times = [piece.timestamps for piece in pieces if piece.timestamps is not None]
    return Interactions(
        np.concatenate([piece.users for piece in pieces]),
        np.concatenate([piece.items for piece in pieces]),
        np.concatenate([piece.ratings for piece in pieces]),
        np.concatenate(times) if len(times) == len(pieces) else None,
    )
