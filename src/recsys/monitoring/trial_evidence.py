"""The evidence of a trial, added up from record and feedback as they come: each list and each event counts once.

A start of the judge reads all rows again, in their order, and comes to the same sums: nothing is kept but them.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

import numpy as np

from recsys.experiments.assignment import ARMS, CHALLENGER, CHAMPION
from recsys.experiments.differences import Summary, summarise
from recsys.experiments.judging import GUARDS, Beside, Evidence
from recsys.experiments.plan import LIKE, RATING
from recsys.experiments.precision import precisions
from recsys.monitoring.attribution import SLACK
from recsys.monitoring.trial_rows import EventRow, ListRow, Shown, TrialRows

_MEASURED = 200  # lists of the champion whose 99th percentile says what is slow
_FALLBACK = "popular"  # the policy of a list that knows nothing of its user
_OVERLAP = 60.0  # seconds: a list may be written after the feedback that answers it


class Tally:
    """What one server's file says of one trial."""

    def __init__(
        self, rows: TrialRows, *, reward: str, like_threshold: float, latency: float, shadow: bool, within: float
    ) -> None:
        """Begin with nothing.

        Args:
            reward: like, rating or a type of feedback.
            latency: seconds above the champion's 99th percentile beyond which a list is slow.
            within: seconds after which an event that names no request answers a list no more.
        """
        self._rows = rows
        self._reward, self._threshold = reward, like_threshold
        self._latency, self._shadow, self._within = latency, shadow, within
        self._last_list = self._last_event = 0
        self._looked = 0.0  # by this server's clock
        self._lists = dict.fromkeys(ARMS, 0)
        self._users: dict[str, str] = {}  # arm by user
        self._met: dict[str, dict[str, str]] = {name: {} for name in GUARDS}  # arm by user, by the first event
        self._champion_seconds: list[float] = []
        self._beside = np.zeros(4)  # requests that both answered: how many; sums of overlap, and of seconds by arm
        self._slow: float | None = None
        self._watched = 0  # lists of the challenger since it is known
        self._of_user: dict[str, int] = defaultdict(int)  # lists
        # By user and item, or answered request: the event that counts, and its value.
        self._values: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
        self._pending: list[tuple[float, EventRow]] = []  # first seen when, whose list is not there yet

    @property
    def begun(self) -> bool:
        """Whether a list of the trial was seen."""
        return bool(self._last_list)

    def look(self) -> Evidence:
        """Read on; the evidence so far."""
        started = time.time()
        if self._rows.is_there():
            for row in self._rows.lists(self._last_list):
                self._add_list(row)
                self._last_list = row.id
            if not self._shadow:
                self._add_events(self._rows.events(self._last_event, self._looked - _OVERLAP), started)
        self._looked = started
        return self.evidence()

    def evidence(self) -> Evidence:
        """The sums."""
        counts = [list(self._users.values()).count(arm) for arm in ARMS]
        events = {
            name: (sum(arm == CHAMPION for arm in met.values()), sum(arm == CHALLENGER for arm in met.values()))
            for name, met in self._met.items()
        }
        champion, challenger = self._rewards()
        lists = self._lists[CHAMPION], self._lists[CHALLENGER]
        both, same, *seconds = self._beside.tolist()
        beside = Beside(same / both, (seconds[0] / both, seconds[1] / both)) if both else None
        users, rewards = (counts[0], counts[1]), (champion, challenger)
        return Evidence(lists, users, rewards, events, self._slow, self._watched, beside=beside)

    def _add_list(self, row: ListRow) -> None:
        if self._shadow:
            self._add_pair(row)
            return
        arm = CHALLENGER if row.arm == CHALLENGER else CHAMPION  # one object for all rows
        self._lists[arm] += 1
        self._users.setdefault(row.user, arm)
        self._of_user[row.user] += 1
        if row.failed:
            self._met["errors"].setdefault(row.user, arm)
            return
        for name, met in (("empty_lists", row.empty), ("fallback", row.policy == _FALLBACK)):
            if met:
                self._met[name].setdefault(row.user, arm)
        if self._slow is not None and row.seconds is not None:
            self._watched += arm == CHALLENGER
            if row.seconds > self._slow:
                self._met["latency"].setdefault(row.user, arm)
        if arm == CHAMPION:
            self._measure(row.seconds)

    def _add_pair(self, row: ListRow) -> None:
        """Shadow mode: what one of the two alone did wrong on the same request."""
        self._lists[CHAMPION] += 1
        if row.beside is None:
            return
        other = json.loads(row.beside)
        self._lists[CHALLENGER] += 1
        failed, answered = bool(other["failed"]), not (row.failed or other["failed"])
        mine, theirs = row.seconds or 0.0, float(other["seconds"])
        pairs = [("errors", row.failed, failed)]
        if answered:
            fallback = row.policy == _FALLBACK, other["policy"] == _FALLBACK
            pairs += [("empty_lists", row.empty, not other["items"]), ("fallback", *fallback)]
            if self._slow is not None:
                pairs.append(("latency", mine > self._slow, theirs > self._slow))
            self._measure(row.seconds)
            items = other["items"]
            same = len(set(items) & set(json.loads(row.items or "[]"))) / len(items) if items else float(row.empty)
            self._beside += (1.0, same, mine, theirs)
        for name, champion, challenger in pairs:
            if champion != challenger:
                self._met[name].setdefault(row.user, CHALLENGER if challenger else CHAMPION)

    def _measure(self, seconds: float | None) -> None:
        if self._slow is None and seconds is not None:
            self._champion_seconds.append(seconds)
            if len(self._champion_seconds) == _MEASURED:
                self._slow = float(np.quantile(self._champion_seconds, 0.99)) + self._latency

    def _add_events(self, rows: Iterable[EventRow], now: float) -> None:
        kind = RATING if self._reward == LIKE else self._reward
        waiting, self._pending = self._pending, []
        shown: dict[str, list[Shown]] = {}
        for seen, row in chain(waiting, ((now, row) for row in rows)):
            self._last_event = max(self._last_event, row.id)
            if row.kind != kind:
                continue
            if row.user not in shown:
                shown[row.user] = self._rows.shown_to(row.user) if row.user in self._users else []
            request = _answered(row, shown[row.user], self._within)
            if request is not None:
                self._keep(row, request)
            elif now - seen < _OVERLAP:
                self._pending.append((seen, row))

    def _keep(self, row: EventRow, request: str) -> None:
        """The last rating of an item counts, as everywhere; of other events, that the list was answered."""
        if self._reward not in (LIKE, RATING):
            self._values[row.user][request] = row.id, 1.0
        elif row.value is not None:
            value = float(row.value >= self._threshold) if self._reward == LIKE else float(row.value)
            kept = self._values[row.user]
            if kept.get(row.item, (0, 0.0))[0] <= row.id:
                kept[row.item] = row.id, value

    def _rewards(self) -> tuple[Summary, Summary]:
        """The mean over each arm's users of their values: with a type of feedback of all users, else of who rated."""
        if self._reward in (LIKE, RATING):
            given = {user: [value for _, value in values.values()] for user, values in self._values.items()}
            counts = np.array([len(values) for values in given.values()], np.float64)
            means = np.array([sum(values) / len(values) for values in given.values()])
            squares = np.array([sum(value * value for value in values) for values in given.values()])
        else:  # 1 for a list that it answered, 0 for any other
            given = {user: [] for user in self._users}
            counts = np.array([self._of_user[user] for user in given], np.float64)
            squares = np.array([len(self._values.get(user, ())) for user in given], np.float64)
            means = squares / counts
        challenger = np.array([self._users[user] == CHALLENGER for user in given], np.bool_)
        weights = precisions(counts, means, np.maximum(squares - counts * means**2, 0), challenger)
        return summarise(means[~challenger], weights[~challenger]), summarise(means[challenger], weights[challenger])


def _answered(row: EventRow, lists: list[Shown], within: float) -> str | None:
    """The request of the list that an event answers: the one it names, or the last before it that showed the item.

    Lists and events of one server have one clock; those that another server accepted are given some minutes.
    """
    if row.request:
        for one in lists:
            if one.request == row.request:
                return one.request if row.item in one.items else None
    for one in reversed(lists):
        if row.item in one.items and one.moment <= row.received + SLACK and row.received - one.moment <= within:
            return one.request
    return None
