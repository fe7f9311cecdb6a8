"""A version that knows the truth of its users and items, and reports of what a server would have recorded of it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge
from recsys.monitoring.archive import Archive
from recsys.monitoring.rated import Reference, reference_of
from recsys.monitoring.report import Load, Report, watch
from recsys.monitoring.traffic import Names, read_feedback, read_traffic
from tests.support.builders import TableRecommender
from tests.support.served_traffic import DAY, Given, given_of

USERS, ITEMS = 150, 60


class World(NamedTuple):
    """The version, test rows of its data, and ratings that it has not learnt from either."""

    recommender: TableRecommender
    reference: Reference
    given: Given


def make_world() -> World:
    """150 users and 60 items; half of the pairs that were not seen are the reference."""
    random = np.random.default_rng(0)
    taste = 3.2 + random.normal(0, 0.6, USERS)[:, None] + random.normal(0, 0.6, ITEMS)[None, :]
    like = 1 / (1 + np.exp(-2.2 * (taste - 3.5)))
    seen = np.argwhere(random.random((USERS, ITEMS)) < 0.3).astype(np.int32)
    ids = [np.array(sorted(f"{kind}{at}" for at in range(n)), object) for kind, n in (("u", USERS), ("i", ITEMS))]
    biases = Biases(3.2, np.zeros(USERS), np.zeros(ITEMS))
    knowledge = Knowledge(*ids, seen, (1.0, 5.0), 4.0, biases, LikeCalibration(2.2, -7.7))
    recommender = TableRecommender(knowledge, taste, like)
    free = np.ones((USERS, ITEMS), bool)
    free[seen[:, 0], seen[:, 1]] = False
    pairs = random.permutation(np.argwhere(free))
    ratings = np.clip(np.round(taste[pairs[:, 0], pairs[:, 1]] + random.normal(0, 0.7, len(pairs))), 1, 5)
    users, items = ids[0][pairs[:, 0]], ids[1][pairs[:, 1]]
    half = len(pairs) // 2
    reference = reference_of(recommender, users[:half], items[:half], ratings[:half], pairs[:half, 0])
    return World(recommender, reference, given_of(users[half:], items[half:], ratings[half:]))


def report(path: Path, load: Load, **said: Any) -> Report:
    """The report of version 1 on a database of record and feedback; without other words, of its first day."""
    archive, names = Archive(f"sqlite:///{path}"), Names.empty()
    given = {"since": 0.0, "until": DAY, "within": 7 * DAY, **said}
    return watch(
        read_traffic(archive.lists(given["since"] - 7 * DAY, given["until"]), names),
        read_feedback(archive.feedback(given["since"], 10 * DAY), names),
        names,
        "1",
        load,
        given.pop("reference"),
        **given,
    )
