"""Runs of ratings: a user's ratings in the order of time, a dozen at a time.

People rate in sittings, and one sitting's ratings are all a little higher or lower than another's. Counting ratings
instead of hours needs no unit of time and gives active days several runs. See the user bias by day of Koren,
"Collaborative filtering with temporal dynamics" (2009), section 3.2.
"""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Array, Codes, Floats

LENGTH = 10  # ratings to a run; with 4 to 16 MovieLens 100K and 1M score alike


@dataclass(frozen=True, eq=False)
class Runs:
    """m runs, sorted by user and time: whose each is, and its first and last moment; each of shape (m,)."""

    users: Codes
    starts: Floats
    ends: Floats

    def __len__(self) -> int:
        return len(self.users)

    def find(self, users: Codes, timestamps: Floats) -> Codes:
        """The run that each user's moment belongs to, shape (n,); -1 for none.

        Between two runs it is the nearer. After the last one and before the first a sitting is taken to go on for at
        most as long as the run was; NaN is no moment.
        """
        if not len(self):
            return np.full(len(users), -1, np.int32)
        # Moments are compared by rank, so that user and moment are one whole number without loss.
        moments = np.unique(self.starts)
        keys = self.users.astype(np.int64) * (len(moments) + 1) + np.searchsorted(moments, self.starts, side="right")
        known = ~np.isnan(timestamps)
        times = np.where(known, timestamps, 0.0)
        wanted = users.astype(np.int64) * (len(moments) + 1) + np.searchsorted(moments, times, side="right")
        after = np.searchsorted(keys, wanted, side="right")
        distance = np.full((2, len(users)), np.inf)
        inside = known & (after > 0), known & (after < len(self))
        before, after = np.maximum(after - 1, 0), np.minimum(after, len(self) - 1)
        for row, run in enumerate((before, after)):
            own = inside[row] & (self.users[run] == users)
            distance[row, own] = np.maximum(times - self.ends[run], self.starts[run] - times).clip(min=0)[own]
        nearest = np.where(distance[0] <= distance[1], before, after)
        lonely = np.isinf(distance).any(axis=0)  # at the end of a user's runs
        least = distance.min(axis=0)
        found = np.isfinite(least) & (~lonely | (least <= self.ends[nearest] - self.starts[nearest]))
        return np.where(found, nearest, -1).astype(np.int32)


def cut_runs(users: Codes, timestamps: Array) -> tuple[Runs, Codes]:
    """The runs of each user's ratings, about equally long, and the run of every rating, (n,).

    Ratings of one moment are not parted.
    """
    order = np.lexsort((timestamps, users))
    user, time = users[order], np.asarray(timestamps, np.float64)[order]
    counts = np.bincount(user)
    rank = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    pieces = np.maximum(1, np.round(counts / LENGTH)).astype(np.int64)[user]
    piece = rank * pieces // counts[user]
    moment = np.r_[True, (user[1:] != user[:-1]) | (time[1:] != time[:-1])]
    piece = piece[np.maximum.accumulate(np.where(moment, np.arange(len(user)), 0))]  # that of the moment's first rating
    first = np.r_[True, (user[1:] != user[:-1]) | (piece[1:] != piece[:-1])]
    at = np.flatnonzero(first)
    run_of = np.empty(len(user), np.int32)
    run_of[order] = np.cumsum(first) - 1
    last = np.r_[at[1:], len(user)] - 1
    return Runs(user[at].astype(np.int32), time[at], time[last]), run_of
