"""Which impression an event answers: by the request that it names, or else by user and item within a time."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys.arrays import Array, Floats
from recsys.monitoring.traffic import Feedback, Names, Traffic

EARLIER = " of before"  # behind the number of a version that a registry has lost
SLACK = 300.0
"""Seconds by which another machine's clock may be ahead of ours."""


def event_times(feedback: Feedback) -> Floats:
    """When events happened: as the client said where that can be, else when they were received."""
    with np.errstate(invalid="ignore"):
        believed = (feedback.moments >= 0) & (feedback.moments <= feedback.received + SLACK)
    return np.where(believed, np.minimum(feedback.moments, feedback.received), feedback.received)


def attribute(feedback: Feedback, traffic: Traffic, within: float, times: Floats) -> Array:
    """For each event the place in `traffic.items` of what it answers, -1 where nothing was shown: shape (n,), int64.

    An event that names a request belongs to it, however late it comes. Any other belongs to the last time at which
    its user was shown its item, `within` seconds before it.

    Args:
        times: (n,) of the events, as of `event_times`.
    """
    found = np.full(len(feedback), -1, np.int64)
    if not len(feedback) or not len(traffic.items):
        return found
    lists = traffic.lists
    width = int(max(traffic.items.max(), feedback.items.max())) + 1
    list_of = {request: at for at, request in enumerate(traffic.requests)}
    named = np.array([list_of.get(request, -1) if request else -1 for request in feedback.requests], np.int64)
    rows = np.flatnonzero(named >= 0)
    if len(rows):
        asked = np.zeros(len(traffic), np.bool_)
        asked[named[rows]] = True
        shown = np.flatnonzero(asked[lists])
        found[rows] = _look_up(
            named[rows] * width + feedback.items[rows],
            lists[shown].astype(np.int64) * width + traffic.items[shown],
            shown,
        )
    rest = np.flatnonzero(found < 0)
    pairs = feedback.users[rest].astype(np.int64) * width + feedback.items[rest]
    wanted = np.zeros(int(max(traffic.users.max(), feedback.users.max())) + 1, np.bool_)
    wanted[feedback.users[rest]] = True
    shown = np.flatnonzero(wanted[traffic.users][lists])
    shown_pairs = traffic.users[lists[shown]].astype(np.int64) * width + traffic.items[shown]
    shared = np.isin(shown_pairs, pairs)
    shown, shown_pairs = shown[shared], shown_pairs[shared]
    events = pd.DataFrame({"at": times[rest] + SLACK, "pair": pairs, "row": rest}).sort_values("at")
    lists_shown = pd.DataFrame({"at": traffic.moments[lists[shown]], "pair": shown_pairs, "place": shown})
    joined = pd.merge_asof(events, lists_shown.sort_values("at"), on="at", by="pair", direction="backward")
    hit = joined["place"].notna().to_numpy()
    places = joined["place"].to_numpy()[hit].astype(np.int64)
    in_time = joined["at"].to_numpy()[hit] - traffic.moments[lists[places]] <= within + SLACK
    found[joined["row"].to_numpy()[hit][in_time]] = places[in_time]
    return found


def _look_up(keys: Array, known: Array, values: Array) -> Array:
    """The value of each key, -1 for an unknown one."""
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
    return np.where(known[order[at]] == keys, values[order[at]], -1)


def newest_of_each(feedback: Feedback) -> Array:
    """The rows that count, ascending: of several events of a kind by one user on one item, the last that arrived."""
    table = pd.DataFrame({"user": feedback.users, "item": feedback.items, "kind": feedback.kinds})
    return np.flatnonzero(~table.duplicated(keep="last").to_numpy())


def tell_apart(traffic: Traffic, names: Names, created: Mapping[str, float]) -> Traffic:
    """Name versions anew, with EARLIER, where a list is older than the version that has that number now.

    A registry that was restored from a backup gives numbers once more that the record has already.

    Args:
        created: seconds since 1970, by version.
    """
    versions = traffic.versions.copy()
    for name, code in list(names.versions.items()):
        older = (traffic.versions == code) & (traffic.moments < created.get(name, 0.0) - SLACK)
        if older.any():
            versions[older] = names.versions[f"{name}{EARLIER}"]
    return replace(traffic, versions=versions)
