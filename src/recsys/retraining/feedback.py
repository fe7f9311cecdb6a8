"""Feedback as ratings to learn from: the newest of each user and item, and the list that each answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.arrays import Array, Flags, Floats, Ids
from recsys.data.cleaning import TAKEN
from recsys.monitoring.archive import Archive
from recsys.monitoring.attribution import attribute, event_times
from recsys.monitoring.traffic import RATING, Feedback, Names, read_feedback, read_traffic

NOWHERE = -1


@dataclass(frozen=True, eq=False)
class GivenRatings:
    """What users gave, (n,) each, in the order in which it arrived; where it answers no list, "" or NaN or -1."""

    users: Ids
    items: Ids
    ratings: Floats  # TAKEN where only takes count
    moments: Floats  # seconds since 1970
    requests: Ids  # of the list that each answers
    versions: Ids
    arms: Ids
    policies: Ids
    positions: Array  # in the ranking, from 0
    propensities: Floats  # of the item in that list, where the server explores
    passed_over: int  # events of other kinds
    repeated: int  # events that a newer one of the same user and item replaces

    def __len__(self) -> int:
        return len(self.ratings)


_NONE = np.empty(0, object)
NOTHING = GivenRatings(
    _NONE, _NONE, np.empty(0), np.empty(0), _NONE, _NONE, _NONE, _NONE, np.empty(0, np.int32), np.empty(0), 0, 0
)


def collect(
    archive: Archive, since: float, until: float, within: float, *, kinds: Sequence[str], implicit: bool
) -> GivenRatings:
    """The feedback received in a time, [since, until) in seconds since 1970.

    Args:
        within: seconds before it in which an event that names no request was shown its item.
        kinds: types of feedback that count; none: ratings, or every type where there are no ratings to learn.
        implicit: only takes count, whatever the value.
    """
    names = Names.empty()
    traffic = read_traffic(archive.lists(since - within, until), names)
    given = read_feedback(archive.feedback(since, until), names)
    rows = np.flatnonzero(_counting(given, names, kinds, implicit))
    pairs = pd.DataFrame({"user": given.users[rows], "item": given.items[rows]})
    kept = rows[~pairs.duplicated(keep="last").to_numpy()]
    feedback = given[kept]
    moments = event_times(feedback)
    places = attribute(feedback, traffic, within, moments)
    answered = places >= 0
    lists = traffic.lists[places[answered]] if answered.any() else np.zeros(0, np.int64)
    return GivenRatings(
        users=names.users.names[feedback.users],
        items=names.items.names[feedback.items],
        ratings=np.full(len(kept), TAKEN) if implicit else feedback.values,
        moments=moments,
        requests=_spread(traffic.requests, lists, answered),
        versions=_spread(names.versions.names[traffic.versions], lists, answered),
        arms=_spread(traffic.arms, lists, answered),
        policies=_spread(traffic.policies, lists, answered),
        positions=_numbers(traffic.positions, places, answered, NOWHERE).astype(np.int32),
        propensities=_numbers(traffic.propensities, places, answered, math.nan),
        passed_over=len(given) - len(rows),
        repeated=len(rows) - len(kept),
    )


def count(archive: Archive, since: float, until: float, *, kinds: Sequence[str], implicit: bool) -> int:
    """How many pairs of user and item have feedback that counts, received in a time."""
    names = Names.empty()
    given = read_feedback(archive.feedback(since, until), names)
    counts = _counting(given, names, kinds, implicit)
    return len(np.unique(np.stack([given.users[counts], given.items[counts]]), axis=1).T)


def _counting(given: Feedback, names: Names, kinds: Sequence[str], implicit: bool) -> Flags:
    """Which events count, (n,)."""
    counts = np.isin(given.kinds.astype(str), list(kinds)) if kinds else (given.kinds == RATING) | implicit
    for codes, known in ((given.users, names.users), (given.items, names.items)):
        # Of an id with a NUL character, which servers of earlier releases took, prepare would refuse the whole file.
        counts = counts & ~np.fromiter(("\0" in name for name in known), np.bool_, len(known))[codes]
    return counts if implicit else counts & ~np.isnan(given.values)


def _spread(column: Ids, lists: Array, answered: Array) -> Ids:
    found = np.full(len(answered), "", object)
    found[answered] = column[lists]
    return found


def _numbers(column: Array, places: Array, answered: Array, missing: float) -> Floats:
    found = np.full(len(places), missing, np.float64)
    found[answered] = column[places[answered]]
    return found
