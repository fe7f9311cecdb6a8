"""A window of traffic and feedback in, a report out: numbers, measures, findings, and what could not be compared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.arrays import Array, Flags, Floats
from recsys.errors import InputError
from recsys.models.base.recommender import Recommender
from recsys.monitoring import measures
from recsys.monitoring.attribution import SLACK, attribute, event_times, newest_of_each
from recsys.monitoring.checks import ALPHA, Finding, Window, assess, headline
from recsys.monitoring.expected import Adjustment, expected_auc
from recsys.monitoring.lists import describe_lists, traffic_per_hour
from recsys.monitoring.measures import Measure
from recsys.monitoring.rated import Rated, Reference, learnt_from, rate
from recsys.monitoring.traffic import RATING, Feedback, Names, Traffic

LIKES = ("like", "star")
"""Kinds of events, beside ratings of at least the threshold, that are likes."""

REFERENCE = "reference"
"""In the table of measures: test rows of the champion's own data."""

Load = Callable[[str], Recommender]
"""A version's recommender by its number as text; raises InputError where it is gone or cannot be loaded."""


@dataclass(frozen=True, eq=False)
class Report:
    """What one look found."""

    since: float
    until: float
    version: str
    look: int
    numbers: Mapping[str, float]
    measures: Sequence[Measure]
    findings: Sequence[Finding]
    notes: Sequence[str]
    rated: Rated  # of the champion's and earlier versions' ratings that count, as the champion expected them
    reference: Reference | None
    per_hour: Mapping[str, Floats]

    @property
    def alarms(self) -> list[Finding]:
        """The alarms that no other explains, the worst first."""
        return headline(self.findings)

    @property
    def calibration(self) -> tuple[Floats, Floats]:
        """Mean probability of a like and share of likes, by tenths of the ratings: (g,) each."""
        return measures.calibration_curve(self.rated.liked, self.rated.like)

    def as_json(self) -> dict[str, Any]:
        """All numbers, without rows; NaN and infinity as null."""
        content = {
            "since": self.since,
            "until": self.until,
            "version": self.version,
            "look": self.look,
            "numbers": dict(self.numbers),
            "measures": [asdict(one) for one in self.measures],
            "findings": [asdict(one) for one in self.findings],
            "notes": list(self.notes),
            "calibration": [column.tolist() for column in self.calibration],
        }
        cleaned: dict[str, Any] = _clean(content)
        return cleaned


def _clean(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _clean(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_clean(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(content) if np.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content


@dataclass(frozen=True, eq=False)
class _Joined:
    """Events that count, what each answers, and the version it is of."""

    feedback: Feedback
    places: Array  # in traffic.items, -1: nothing that was shown
    versions: Array  # codes of the names of versions


def watch(
    traffic: Traffic,
    feedback: Feedback,
    names: Names,
    champion: str,
    load: Load,
    reference: Reference | None,
    *,
    since: float,
    until: float,
    within: float,
    look: int = 1,
    like_threshold: float | None = None,
    alpha: float = ALPHA,
    notes: Iterable[str] = (),
) -> Report:
    """Judge a window.

    Args:
        traffic: lists from `within` before the window on: feedback may answer earlier ones.
        feedback: what was received since the window began; a list of the window may get its feedback after its end.
        champion: the version that is judged; feedback that answers no list is taken to be of it.
        reference: of the champion's own data, None where it is gone.
        since, until: the window, in seconds since 1970.
        within: seconds after which an event that names no request no longer answers a list.
        like_threshold: a rating of at least this is a like; None: as the champion learnt.

    Raises:
        InputError: if the champion cannot be loaded.
    """
    recommender = load(champion)
    knowledge, told = recommender.knowledge, list(notes)
    threshold = knowledge.like_threshold if like_threshold is None else like_threshold
    answers = _answers(feedback, traffic, names, champion, within, until)
    of_versions, rated = _measure_versions(
        answers.joined, answers.in_window, traffic, names, champion, load, reference, threshold, told
    )
    served = np.flatnonzero((traffic.moments >= since) & (traffic.moments < until))
    hits = np.unique(answers.joined.places[_liked(answers.joined, threshold) & (answers.joined.places >= 0)])
    here, received = traffic.select(served), answers.received
    numbers = describe_lists(here, names, knowledge)
    numbers |= _feedback_numbers(feedback, answers, rated) | _expected_numbers(here, reference)
    if not received.any():
        told.append("no feedback came in this window: what versions reach is only expected")
    if reference is None:
        told.append(f"what version {champion} learnt from is gone: there is nothing to compare the window with")
    window = Window(
        rated,
        knowledge.like_threshold,
        knowledge.scale,
        answers.repeated[received],
        answers.impossible[received],
        feedback.users[received],
    )
    return Report(
        since,
        until,
        champion,
        look,
        numbers,
        [
            *(measures.measure_ratings(REFERENCE, reference.rated) if reference else []),
            *of_versions,
            *_measure_lists(traffic, names, served, hits),
        ],
        assess(window, reference.rated if reference else None, look, alpha),
        told,
        rated,
        reference,
        traffic_per_hour(here, since, until),
    )


@dataclass(frozen=True, eq=False)
class _Answers:
    """What each event answers, and which of them came in the window."""

    places: Array  # (events,) the position of the shown item that it answers, -1 for none
    received: Flags  # (events,) in the window
    repeated: Flags  # (events,) sent before
    impossible: Flags  # (events,)
    joined: "_Joined"  # the newest of each kind, without those sent before
    in_window: Flags  # of those


def _answers(
    feedback: Feedback, traffic: Traffic, names: Names, champion: str, within: float, until: float
) -> _Answers:
    places = attribute(feedback, traffic, within, event_times(feedback))
    repeated = feedback.repeated
    counted = np.flatnonzero(~repeated)
    counted = counted[newest_of_each(feedback[counted])]
    joined = _joined(feedback[counted], places[counted], traffic, names, champion)
    impossible = _impossible(feedback, traffic, within, places)
    return _Answers(places, feedback.received < until, repeated, impossible, joined, joined.feedback.received < until)


def _expected_numbers(here: Traffic, reference: Reference | None) -> dict[str, float]:
    """What the probabilities of the items served in the window promise; nothing where none was."""
    if not len(here.likes):
        return {}
    likes = (reference.adjustment if reference else Adjustment()).probability(here.likes.astype(np.float64))
    return {"served_like_probability": float(likes.mean()), "served_expected_auc": expected_auc(likes)}


def _impossible(feedback: Feedback, traffic: Traffic, within: float, places: Array) -> Flags:
    """Events from the future, or from before the list that they answer by their arrival."""
    by_arrival = attribute(feedback, traffic, within, feedback.received)
    answered = np.where(places >= 0, places, by_arrival)
    shown = np.full(len(feedback), np.nan)
    hit = answered >= 0
    shown[hit] = traffic.moments[traffic.lists[answered[hit]]]
    with np.errstate(invalid="ignore"):
        return (feedback.moments > feedback.received + SLACK) | (feedback.moments < shown - SLACK)


def _joined(feedback: Feedback, places: Array, traffic: Traffic, names: Names, champion: str) -> _Joined:
    versions = np.full(len(feedback), names.versions[champion], np.int64)
    hit = places >= 0
    versions[hit] = traffic.versions[traffic.lists[places[hit]]]
    return _Joined(feedback, places, versions)


def _liked(joined: _Joined, threshold: float) -> Flags:
    feedback = joined.feedback
    with np.errstate(invalid="ignore"):
        return np.where(feedback.kinds == RATING, feedback.values >= threshold, np.isin(feedback.kinds, LIKES))


def _measure_versions(
    joined: _Joined,
    in_window: Flags,
    traffic: Traffic,
    names: Names,
    champion: str,
    load: Load,
    reference: Reference | None,
    threshold: float,
    notes: list[str],
) -> tuple[list[Measure], Rated]:
    """Measures of every version that got ratings, and the ratings as the champion expected them."""
    users, items, version_names = names.users.names, names.items.names, names.versions.names
    feedback = joined.feedback
    rows = np.flatnonzero((feedback.kinds == RATING) & in_window & ~np.isnan(feedback.values))
    adjustment = reference.adjustment if reference else None

    def scored(recommender: Recommender, some: Array, served: Floats | None, adjust: Adjustment | None) -> Rated:
        ids = users[feedback.users[some]], items[feedback.items[some]]
        kept = ~learnt_from(recommender.knowledge, *ids)
        some = some[kept]
        return rate(
            recommender,
            ids[0][kept],
            ids[1][kept],
            feedback.values[some],
            feedback.users[some],
            like_threshold=threshold,
            adjustment=adjust,
            served=None if served is None else served[kept],
        )

    found: list[Measure] = []
    for code in np.unique(np.append(joined.versions[rows], names.versions[champion])):
        version = str(version_names[code])
        some = rows[joined.versions[rows] == code]
        places = joined.places[some]
        served = np.full(len(some), np.nan)
        if len(traffic.likes):
            served = np.where(places >= 0, traffic.likes[places].astype(np.float64), np.nan)
        try:
            rated = scored(load(version), some, served, adjustment if version == champion else None)
        except InputError as error:
            notes.append(f"{len(some):,} ratings of lists by version {version} are not measured: {error}")
            continue
        found += measures.measure_ratings(f"version {version}", rated)
    whole = scored(load(champion), rows, None, adjustment)
    if len(whole) < len(rows):
        notes.append(f"{len(rows) - len(whole):,} ratings are left out that version {champion} has learnt from")
    return found + measures.measure_segments(whole), whole


def _measure_lists(traffic: Traffic, names: Names, lists: Array, hits: Array) -> list[Measure]:
    found: list[Measure] = []
    version_names = names.versions.names
    for code in np.unique(traffic.versions[lists]):
        some = lists[traffic.versions[lists] == code]
        found += measures.measure_ndcg(f"version {version_names[code]}", traffic, some, hits)
    for arm in sorted(set(traffic.arms[lists].tolist())):
        found += measures.measure_reward(f"arm {arm}", traffic, lists[traffic.arms[lists] == arm], hits)
    return found


def _feedback_numbers(feedback: Feedback, answers: _Answers, rated: Rated) -> dict[str, float]:
    received, impossible = answers.received, answers.impossible
    events = int(received.sum())
    found: dict[str, float] = {"events": events, "ratings": len(rated)}
    if events:
        found["answering_events"] = float(np.mean(answers.places[received] >= 0))
        found["repeated_events"] = float(np.mean(answers.repeated[received]))
        found["impossible_events"] = float(np.mean(impossible[received]))
        offset = feedback.moments[received & impossible] - feedback.received[received & impossible]
        if len(offset):
            found["clock_offset_hours"] = float(np.median(offset)) / 3600
    if len(rated):
        found["rated_unknown_users"] = float(np.mean(rated.user_counts == 0))
        found["rated_unknown_items"] = float(np.mean(rated.item_counts == 0))
    return found
