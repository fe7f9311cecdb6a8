"""Rating sessions: each user's ratings in order of time, cut into short runs.

People give many ratings at one sitting, and ratings given one after the other may be a little higher or lower than
usual. A session is cut by the number of ratings, not by hours. So the unit of the timestamps does not matter, and a
day with many ratings has many sessions. How much several sessions in a row have in common is learnt (session_bias.py).
Koren, "Collaborative filtering with temporal dynamics" (2009), section 3.2, has a user bias for each day instead.
"""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Array, Codes, Floats

LENGTH = 2  # ratings in a session, if they have moments of their own


@dataclass(frozen=True, eq=False)
class Sessions:
    """m sessions, sorted by user and time: the user, and the first and last timestamp of each; arrays of shape (m,)."""

    users: Codes
    starts: Floats
    ends: Floats

    def __len__(self) -> int:
        return len(self.users)

    def find(self, users: Codes, timestamps: Floats) -> Codes:
        """The session of each user that each timestamp belongs to, shape (n,); -1 for none.

        Between two sessions it is the nearer one. Before a user's first session and after the last one, a timestamp
        still belongs to that session if it is no farther away than the session is long. NaN belongs to none.
        """
        if not len(self):
            return np.full(len(users), -1, np.int32)
        # Timestamps are replaced by their rank, so that user and timestamp fit into one integer without loss.
        ranked = np.unique(self.starts)
        keys = self.users.astype(np.int64) * (len(ranked) + 1) + np.searchsorted(ranked, self.starts, side="right")
        known = ~np.isnan(timestamps)
        times = np.where(known, timestamps, 0.0)
        wanted = users.astype(np.int64) * (len(ranked) + 1) + np.searchsorted(ranked, times, side="right")
        after = np.searchsorted(keys, wanted, side="right")
        distance = np.full((2, len(users)), np.inf)
        inside = known & (after > 0), known & (after < len(self))
        before, after = np.maximum(after - 1, 0), np.minimum(after, len(self) - 1)
        for row, session in enumerate((before, after)):
            own = inside[row] & (self.users[session] == users)
            distance[row, own] = np.maximum(times - self.ends[session], self.starts[session] - times).clip(min=0)[own]
        nearest = np.where(distance[0] <= distance[1], before, after)
        outermost = np.isinf(distance).any(axis=0)  # before a user's first session or after the last one
        least = distance.min(axis=0)
        found = np.isfinite(least) & (~outermost | (least <= self.ends[nearest] - self.starts[nearest]))
        return np.where(found, nearest, -1).astype(np.int32)


NO_SESSIONS = Sessions(np.zeros(0, np.int32), np.zeros(0), np.zeros(0))


def cut_sessions(users: Codes, timestamps: Array, length: int | None = None) -> tuple[Sessions, Codes]:
    """Cut each user's ratings into sessions of about equal length.

    Ratings with the same timestamp stay in one session.

    Args:
        users: user of each rating, shape (n,).
        timestamps: of each rating, shape (n,), in any unit.
        length: ratings in a session, about; LENGTH if None.

    Returns:
        The sessions, and the session of each rating, shape (n,).
    """
    order = np.lexsort((timestamps, users))
    user, time = users[order], np.asarray(timestamps, np.float64)[order]
    counts = np.bincount(user)
    rank = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    pieces = np.maximum(1, np.round(counts / (length or LENGTH))).astype(np.int64)[user]
    piece = rank * pieces // counts[user]
    new_time = np.r_[True, (user[1:] != user[:-1]) | (time[1:] != time[:-1])]
    piece = piece[np.maximum.accumulate(np.where(new_time, np.arange(len(user)), 0))]  # that of the same timestamp
    first = np.r_[True, (user[1:] != user[:-1]) | (piece[1:] != piece[:-1])]
    at = np.flatnonzero(first)
    session_of = np.empty(len(user), np.int32)
    session_of[order] = np.cumsum(first) - 1
    last = np.r_[at[1:], len(user)] - 1
    return Sessions(user[at].astype(np.int32), time[at], time[last]), session_of


def drop_single_sessions(sessions: Sessions, of_rating: Codes) -> tuple[Sessions, Codes]:
    """The sessions of users with several, m of them, and the session of each rating, m for none.

    A user's only session would be the user's bias over again.
    """
    kept = np.bincount(sessions.users)[sessions.users] > 1
    numbers = np.where(kept, np.cumsum(kept) - 1, kept.sum()).astype(np.int32)
    return Sessions(sessions.users[kept], sessions.starts[kept], sessions.ends[kept]), numbers[of_rating]
