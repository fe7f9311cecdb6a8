"""Who rated what, of all users at once: the rows that item-to-item weights are learnt from, and their sessions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.arrays import Array, Codes, Floats
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.models.base.lists import RatedItems
from recsys.models.base.recommender import Recommender

_SORTED_AT_A_TIME = 1 << 22  # rows
_GAPS_WITHIN = 0.75  # the share of pauses between two ratings of a user that end no session


@dataclass(frozen=True, eq=False)
class Histories:
    """The rows learnt from, with how many are newer, and the session of each, (n,), where there are timestamps."""

    rated: RatedItems
    sessions: Codes | None

    def rated_as(self, half_life: float | None) -> RatedItems:
        """The rows, without their age where it does not count."""
        return self.rated if half_life is not None else replace(self.rated, newer=None)


def collect_histories(recommender: Recommender, dataset: Dataset, parts: Sequence[str]) -> Histories:
    """The rows of these parts in the codes of the recommender, sorted by user and item, without a copy of all rows."""
    knowledge = recommender.knowledge
    users, items = knowledge.user_codes(dataset.user_ids), knowledge.item_codes(dataset.item_ids)

    def blocks() -> Iterator[Interactions]:
        for part in parts:
            for block in dataset.blocks(part):
                yield Interactions(users[block.users], items[block.items], block.ratings, block.timestamps)

    starts, timed = np.zeros(len(knowledge.user_ids) + 1, np.int64), True
    for block in blocks():
        starts[1:] += np.bincount(block.users, minlength=len(knowledge.user_ids))
        timed = timed and block.timestamps is not None
    np.cumsum(starts, out=starts)
    columns: list[Array] = [np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)]
    if timed:
        columns.append(np.empty(starts[-1]))
    filled = starts[:-1].copy()
    for block in blocks():
        order = np.argsort(block.users, kind="stable")
        whose = block.users[order]
        at = filled[whose] + np.arange(len(whose)) - np.searchsorted(whose, whose)
        given = (block.items, block.ratings, block.timestamps)
        for column, values in zip(columns, given, strict=False):
            column[at] = values[order]  # type: ignore[index]
        filled += np.bincount(whose, minlength=len(filled))
    for part, whose in _some_users(starts):
        order = np.lexsort((columns[0][part], whose))
        for column in columns:
            column[part] = column[part][order]
    if not timed or not len(columns[0]):
        return Histories(RatedItems(starts, columns[0], columns[1]), None)
    newer = count_newer(starts, columns[2])
    return Histories(RatedItems(starts, columns[0], columns[1], newer), cut_sessions(starts, columns[2]))


def count_newer(starts: Array, times: Floats) -> Codes:
    """How many of the user's rows are newer than each, (n,), of one moment those of higher place.

    Args:
        starts: (users + 1,) where each user's rows begin.
        times: (n,) of any order within a user; a row whose time is NaN is as old as can be.
    """
    newer = np.empty(len(times), np.int32)
    for part, whose in _some_users(starts):
        order = np.lexsort((np.nan_to_num(times[part], nan=-np.inf), whose))
        newer[part.start + order] = starts[whose + 1] - 1 - np.arange(part.start, part.stop)
    return newer


def cut_sessions(starts: Array, times: Floats) -> Codes | None:
    """The session of each row, shape (n,): a user's ratings between two of the longest pauses, a quarter of all.

    The unit of time does not matter. None where no user has rated twice.

    Args:
        starts: (users + 1,) where each user's rows begin.
        times: (n,) of any order within a user; a row whose time is NaN is a session of its own.
    """
    pauses: list[Floats] = []
    orders: list[Array] = []
    for part, whose in _some_users(starts):
        order = np.lexsort((times[part], whose))
        pause = np.diff(times[part][order], prepend=np.nan)
        pause[np.r_[True, np.diff(whose) > 0]] = np.nan
        pauses.append(pause)
        orders.append(order + part.start)
    pause = np.concatenate(pauses)
    if np.isnan(pause).all():
        return None
    longest = np.nanquantile(pause, _GAPS_WITHIN)
    sessions = np.empty(len(times), np.int32)
    sessions[np.concatenate(orders)] = np.cumsum(~(pause <= longest)) - 1
    return sessions


def _some_users(starts: Array) -> Iterator[tuple[slice, Codes]]:
    """The rows of some users at a time, and whose each is."""
    first, users = 0, len(starts) - 1
    while first < users:
        last = int(np.searchsorted(starts, starts[first] + _SORTED_AT_A_TIME, "right")) - 1
        last = min(max(last, first + 1), users)
        whose = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(starts[first : last + 1]))
        if len(whose):
            yield slice(int(starts[first]), int(starts[last])), whose
        first = last
