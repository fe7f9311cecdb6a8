"""A version's lists beside those that were served: an offline look before a trial."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsys.errors import InputError
from recsys.experiments.replay import Replayed, replay

if TYPE_CHECKING:
    from registry.versions import Version

_WITHIN = 7 * 86_400.0


def replay_version(version: "Version", folder: Path, until: float) -> Replayed:
    """Replay the lists that the champion has shown since the version was trained, by the likes that they brought.

    The version lists by what it learnt, so that only lists are replayed that are younger than it is: it cannot have
    learnt what they brought.

    Raises:
        InputError: if there is no such list.
    """
    from recsys.experiments.assignment import CHAMPION
    from recsys.monitoring.archive import Archive
    from recsys.monitoring.attribution import attribute, event_times, newest_of_each
    from recsys.monitoring.traffic import RATING, Names, read_feedback, read_traffic
    from registry import integrity

    names, archive = Names.empty(), Archive.of_folder(folder)
    traffic = read_traffic(archive.lists(version.created, until), names)
    named = np.array([bool(name) for name in names.users.names], np.bool_)
    whole = np.flatnonzero((traffic.arms == CHAMPION) & (traffic.sizes > 0) & named[traffic.users])
    if not len(whole):
        raise InputError(
            f"version {version.number} cannot be replayed: no list was served since it was trained; replay it once the "
            f"server of {folder} has answered for a while"
        )
    traffic = traffic.select(whole)
    feedback = read_feedback(archive.feedback(version.created, until), names)
    feedback = feedback[np.flatnonzero(feedback.kinds == RATING)]
    feedback = feedback[newest_of_each(feedback)]
    recommender = integrity.load_version(version)
    rewards = np.zeros(len(traffic.items))
    places = attribute(feedback, traffic, _WITHIN, event_times(feedback))
    answered = places >= 0
    rewards[places[answered]] = feedback.values[answered] >= recommender.knowledge.like_threshold

    codes, user = np.unique(traffic.users, return_inverse=True)
    most = int((traffic.positions + 1).max())
    made = recommender.recommend(names.users.names[codes], most)
    listed = [{item: at for at, item in enumerate(row)} for row in made.items]
    lists = traffic.lists
    items = names.items.names[traffic.items]
    ends = np.maximum.reduceat(traffic.positions + 1, np.cumsum(traffic.sizes) - traffic.sizes)
    starts = ends - traffic.sizes
    position = np.array([listed[user[at]].get(item, most) for at, item in zip(lists, items, strict=True)], np.int64)
    would = (position >= starts[lists]) & (position < ends[lists])
    lengths = np.array([len(listed[at]) for at in user])
    sizes = np.clip(lengths - starts, 0, traffic.sizes).astype(np.float64)
    chances = getattr(traffic, "propensities", np.full(len(items), np.nan))  # where the server explores
    return replay(rewards, chances, would, lists, sizes, traffic.users)
