"""Traffic and feedback as a server would have written them, from ratings that a version has not learnt from."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys.arrays import Array, Codes, Floats, Ids
from recsys.models.base.recommender import Recommender
from recsys.serving.record import message
from recsys.serving.record_blocks import Impression
from recsys.serving.record_table import Table

DAY = 86_400.0
_LISTS = 50  # that a worker hands over at once
FEEDBACK = """create table if not exists feedback (
    id integer primary key, key text not null unique, user text not null, item text not null, kind text not null,
    value real, moment text not null, received real not null, request text
)"""


@dataclass(frozen=True, eq=False)
class Given:
    """Ratings as they were given, (n,) each."""

    users: Ids
    items: Ids
    ratings: Floats
    repeats: Array  # how often each was sent
    clock: float = 0.0  # seconds by which the clients' clocks are ahead


Injection = Callable[[Given, np.random.Generator], Given]


def level_falls(given: Given, random: np.random.Generator) -> Given:
    """Ratings half a point lower, within the scale."""
    return replace(given, ratings=np.clip(given.ratings - 0.5, given.ratings.min(), given.ratings.max()))


def new_users(given: Given, random: np.random.Generator) -> Given:
    """A fifth of the users are others."""
    return replace(given, users=_renamed(given.users, 0.2, random))


def new_items(given: Given, random: np.random.Generator) -> Given:
    """A third of the catalogue is replaced."""
    return replace(given, items=_renamed(given.items, 1 / 3, random))


def sent_twice(given: Given, random: np.random.Generator) -> Given:
    """Every event arrives twice, under another key."""
    return replace(given, repeats=given.repeats * 2)


def clock_ahead(given: Given, random: np.random.Generator) -> Given:
    """The clients' clocks are a day ahead."""
    return replace(given, clock=DAY)


def clock_behind(given: Given, random: np.random.Generator) -> Given:
    """The clients' clocks are a day behind."""
    return replace(given, clock=-DAY)


INJECTIONS: dict[str, tuple[Injection, str]] = {
    "rating level -0.5": (level_falls, "rating_level"),
    "20% new users": (new_users, "new_users"),
    "a third of the catalogue replaced": (new_items, "new_items"),
    "feedback duplicated": (sent_twice, "duplicates"),
    "clock a day ahead": (clock_ahead, "clock"),
    "clock a day behind": (clock_behind, "clock"),
}
"""What is done to a window, and the name under which it has to be found."""


def _renamed(ids: Ids, share: float, random: np.random.Generator) -> Ids:
    known, codes = np.unique(ids.astype(str), return_inverse=True)
    chosen = random.choice(len(known), round(share * len(known)), replace=False)
    names = known.astype(object)
    names[chosen] = [f"new {name}" for name in known[chosen]]
    return np.asarray(names[codes], object)


def given_of(users: Ids, items: Ids, ratings: Floats) -> Given:
    """Ratings that were each sent once, by clocks that are right."""
    return Given(users, items, ratings, np.ones(len(ratings), np.int64))


def write(
    path: Path,
    given: Given,
    recommender: Recommender,
    random: np.random.Generator,
    *,
    since: float,
    until: float,
    version: str = "1",
    lists_of: int = 10,
    named: float = 0.5,
) -> None:
    """Write a list for every rating and the rating some minutes after it, in the order of time.

    Args:
        lists_of: items of a list; the rated one stands anywhere in it.
        named: the share of feedback that names the request that it answers.
    """
    n = len(given.ratings)
    catalogue = recommender.knowledge.item_ids.astype(str)
    shown = random.choice(catalogue, (n, lists_of)).astype(object)
    place = random.integers(0, lists_of, n)
    shown[np.arange(n), place] = given.items.astype(str)
    like = recommender.predict(np.repeat(given.users, lists_of), shown.ravel()).like_probability
    served = np.sort(random.uniform(since, until - 1000, n))
    received = served + random.uniform(10, 900, n)
    marker = random.integers(1 << 40)
    table = Table(path)
    for start in range(0, n, _LISTS):
        some = range(start, min(n, start + _LISTS))
        lists = [
            Impression(
                f"{marker:x}-{row}",
                float(served[row]),
                str(given.users[row]),
                version,
                "champion",
                "personal" if row % 10 else "popular",
                0,
                json.dumps(shown[row].tolist()),
                like[row * lists_of : (row + 1) * lists_of],
            )
            for row in some
        ]
        table.add([message(lists)])
    table.close()
    with sqlite3.connect(path) as database:
        database.execute("pragma journal_mode = wal")
        database.executescript(FEEDBACK)
        order = np.argsort(received, kind="stable")
        rows = np.repeat(order, given.repeats[order])
        names = random.random(n) < named
        database.executemany(
            "insert into feedback (key, user, item, kind, value, moment, received, request) "
            "values (?, ?, ?, 'rating', ?, ?, ?, ?)",
            (
                (
                    f"{marker:x}-{at}",
                    str(given.users[row]),
                    str(given.items[row]),
                    float(given.ratings[row]),
                    f"{received[row] + given.clock:.3f}",
                    received[row],
                    f"{marker:x}-{row}" if names[row] else None,
                )
                for at, row in enumerate(rows)
            ),
        )


def codes_of(ids: Ids) -> Codes:
    """A code for each id."""
    return np.unique(ids.astype(str), return_inverse=True)[1].astype(np.int32)
