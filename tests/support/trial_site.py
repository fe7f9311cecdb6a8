"""A server's file as a trial leaves it: lists and feedback of invented users, written without a server."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from recsys.experiments.assignment import CHALLENGER, arm_of
from recsys.serving.feedback import FEEDBACK_TABLES
from recsys.serving.record_table import make_table

_LIST = """insert into served
(request, moment, user, version, arm, policy, first, items, likes, trial, seconds, failed, beside)
values (?, ?, ?, '1', ?, ?, 0, ?, ?, ?, ?, ?, ?)"""
_EVENT = (
    "insert into feedback (key, user, item, kind, value, moment, received, request) values (?, ?, ?, ?, ?, '', ?, ?)"
)


class Site:
    """The file of one server."""

    def __init__(self, folder: Path, trial: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "feedback.db"
        self.trial = trial
        self._database = sqlite3.connect(self.path, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.executescript(FEEDBACK_TABLES)
        make_table(self._database)
        self._count = 0

    def show(
        self,
        user: str,
        arm: str,
        items: Sequence[str] = ("a", "b"),
        *,
        moment: float = 1000.0,
        policy: str = "personal",
        seconds: float | None = 0.003,
        failed: bool = False,
        beside: dict | None = None,
    ) -> str:
        """One list; its request."""
        self._count += 1
        request = f"{self.trial}-r{self._count}"
        text = None if beside is None else json.dumps(beside)
        shown = json.dumps(list(items)), bytes(4 * len(items))
        row = (request, moment, user, arm, policy, *shown, self.trial, seconds, failed, text)
        self._database.execute(_LIST, row)
        return request

    def give(
        self,
        user: str,
        item: str,
        value: float | None = 5.0,
        *,
        kind: str = "rating",
        received: float = 1010.0,
        request: str | None = None,
    ) -> None:
        """One event."""
        self._count += 1
        self._database.execute(_EVENT, (f"{self.trial}-k{self._count}", user, item, kind, value, received, request))

    def replace(self, user: str, item: str, value: float, received: float) -> None:
        """The user's rating of an item, as PUT changes it."""
        self._database.execute(
            "update feedback set value = ?, received = ? where user = ? and item = ?", (value, received, user, item)
        )

    def crowd(
        self,
        users: Iterable[str],
        share: float,
        likes: tuple[float, float],
        random: np.random.Generator,
        errors: tuple[float, float] = (0.0, 0.0),
        each: int = 4,
    ) -> None:
        """A list of `each` items for every user, all of them rated; like rates and error rates by arm."""
        self._database.execute("begin")
        for user in users:
            arm = arm_of(user, self.trial, share)
            of_arm = int(arm == CHALLENGER)
            items = [f"i{number}" for number in range(each)]
            self.show(user, arm, items, failed=bool(random.random() < errors[of_arm]))
            for item in items:
                self.give(user, item, 5.0 if random.random() < likes[of_arm] else 2.0)
        self._database.execute("commit")

    def close(self) -> None:
        """Close the file."""
        self._database.close()
