"""Handlers of lists, in the spelling of Gorse's clients."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recsys.models.base.ranking import NO_LISTS
from recsys.serving.engine import Engine, History, Listed
from recsys.serving.exploration import Exploration
from recsys.serving.feedback import RATING
from recsys.serving.http import ProblemError, Reply, Request, as_id, cut, dump, dump_ids
from recsys.serving.kept_lists import Key, MadeList
from recsys.serving.record_blocks import Impression
from recsys.serving.service import ARM, OnTrial, Served, Service, told
from recsys.serving.trial import Made, Make, beside, show

_MOST_IDS = 1000
_NO_CODES = np.zeros(0, np.int32)


class _Asked(NamedTuple):
    """What a request asks for, in ids: versions have codes of their own."""

    n: int
    offset: int
    exclude: tuple[str, ...]
    candidates: tuple[str, ...]


_PLAIN = _Asked(10, 0, (), ())


def lister(service: Service) -> Served:
    """The version served, which makes lists; raises ProblemError where it cannot, with what to do."""
    served = service.current()
    if not served.engine.makes_lists:
        raise ProblemError(409, f"version {served.version} {NO_LISTS}, and promote what comes of it")
    return served


def recommend(service: Service, request: Request) -> Reply:
    """GET /api/recommend/{user}: a list for a user, by the version that is champion or on trial for the user."""
    lister(service)
    user = as_id(request.parts[2], "the user")
    asked = _asked(service, request)
    exploration = _exploration(service, request)

    def make(served: Served) -> Made:
        return _of_user(service, served, user, asked, exploration)

    trial = service.trial
    if trial is None:
        return _answer(service, request, asked, user, make(service.current()))
    try:
        shown = show(service, trial, user, make)
    except Exception:
        arm = trial.arm_of(user)
        _keep(service, _failure(request, service.current(), user, arm, trial.id))
        service.metrics.failed.labels(arm).inc()
        raise
    if trial.share is None:
        return _answer(service, request, asked, user, shown.made, trial=trial, make=make)
    return _answer(service, request, asked, user, shown.made, arm=shown.arm, failed=shown.failed, trial=trial)


def _asked(service: Service, request: Request) -> _Asked:
    if not request.scope["query_string"]:
        return _PLAIN
    return _Asked(
        request.number("n", _PLAIN.n, 1, service.settings.max_n),
        request.number("offset", 0, 0, service.settings.max_n),
        tuple(request.ids("exclude", _MOST_IDS)),
        tuple(request.ids("candidates", _MOST_IDS)),
    )


def _exploration(service: Service, request: Request) -> Exploration | None:
    return Exploration(share, request.id) if (share := service.settings.explore) else None


def _of_user(service: Service, served: Served, user: str, asked: _Asked, exploration: Exploration | None) -> Made:
    """A user's list by one version: one that was made from the same and is kept, or else made now."""
    started, stages = time.perf_counter(), service.metrics.stages
    code, given = service.find_user(served.engine, user)
    # In a trial every list is made: guards compare how often, and how fast, versions make them.
    kept, key = served.kept if service.trial is None else None, None
    if kept is not None and not (exploration and exploration.draws):
        read = time.perf_counter()
        key = Key(user, tuple(given), *asked)
        found = kept.find(key)
        service.metrics.kept_lists("miss" if found is None else "hit").inc()
        if found is not None:
            stages("history").observe(read - started)
            stages("rank").observe(time.perf_counter() - read)
            return Made(served, found)
    history = served.engine.history(code, told(served.engine, given))
    stages("history").observe(time.perf_counter() - started)
    made = _made(service, served, code, history, asked, started, exploration)
    if kept is not None and key is not None:
        kept.keep(key, made.list)
    return made


def _made(
    service: Service,
    served: Served,
    code: int,
    history: History,
    asked: _Asked,
    started: float,
    exploration: Exploration | None,
) -> Made:
    engine, ranked = served.engine, time.perf_counter()
    if not engine.makes_lists:
        raise LookupError(f"version {served.version} {NO_LISTS}")  # a challenger, whose users are answered otherwise
    listed = engine.recommend(
        code,
        history,
        asked.n + asked.offset,
        exclude=_codes(engine, asked.exclude),
        candidates=_codes(engine, asked.candidates) if asked.candidates else None,
        exploration=exploration,
    )
    done = time.perf_counter()
    service.metrics.stages("rank").observe(done - ranked)
    items = engine.items.names(listed.items[asked.offset :])
    return Made(served, MadeList(code, history, listed, items, dump_ids(items), done - started))


async def session(service: Service, request: Request) -> Reply:
    """POST /api/session/recommend: a list from the history in the body."""
    served = lister(service)
    engine = served.engine
    events = request.json()
    if not isinstance(events, list) or len(events) > service.settings.max_batch:
        raise ProblemError(
            400, f'a list of at most {service.settings.max_batch} events such as {{"ItemId": "1"}} is needed as body'
        )
    added: dict[int, float] = {}
    for row, event in enumerate(events):
        if not isinstance(event, dict) or "ItemId" not in event:
            raise ProblemError(400, f'event {row}: an object such as {{"ItemId": "1"}} is needed, got {cut(event)}')
        code = engine.items.find(as_id(event["ItemId"], f"event {row}: ItemId"))
        is_rating = event.get("FeedbackType") == RATING
        value = rating_within(event.get("Value"), engine, f"event {row}") if is_rating else math.nan
        if code >= 0:
            added.pop(code, None)  # the newest last
            added[code] = value
    asked = _asked(service, request)
    started, exploration = time.perf_counter(), _exploration(service, request)
    made = _made(service, served, -1, engine.history(-1, added), asked, started, exploration)
    return _answer(service, request, asked, "", made)


def rating_within(value: object, engine: Engine, where: str) -> float:
    """A rating within the scale that the version learnt from."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not engine.low <= value <= engine.high:
        raise ProblemError(
            400, f"{where}: Value: a rating from {engine.low:g} to {engine.high:g} is needed, got {cut(value)}"
        )
    return float(value)


def _answer(
    service: Service,
    request: Request,
    asked: _Asked,
    user: str,
    made: Made,
    *,
    arm: str = ARM,
    failed: bool = False,
    trial: OnTrial | None = None,
    make: Make | None = None,
) -> Reply:
    """The reply, and its place in the record; with `make` the challenger is asked the same beside."""
    served, (code, history, listed, items, text, seconds) = made
    engine, offset = served.engine, asked.offset
    service.metrics.lists(listed.policy, served.version, arm).inc()
    if listed.policy == "popular":
        reason = "unknown_user" if user and code < 0 else "no_history"
        service.metrics.fallbacks(reason, served.version, arm).inc()
    likes = listed.probabilities[offset:]
    kept = Impression(request.id, time.time(), user, served.version, arm, listed.policy, offset, text, likes)
    if listed.propensities is not None:
        kept = kept._replace(propensities=listed.propensities[offset:])
    if trial is not None:
        kept = kept._replace(trial=trial.id, seconds=seconds, failed=failed)
    if trial is not None and make is not None:
        beside(service, trial, make, lambda answer: _keep(service, kept._replace(beside=answer)))
    else:
        _keep(service, kept)
    content: Sequence[Any] | None = None
    if request.flag("explain"):
        content = _explained(engine, history, listed, offset)
    elif request.flag("titles"):
        scores = listed.scores[offset:].tolist()
        content = [
            {**named(engine, code), "Score": score}
            for code, score in zip(listed.items[offset:].tolist(), scores, strict=True)
        ]
    elif request.header(b"x-api-version") == "2":
        scores = listed.scores[offset:].tolist()
        content = [{"Id": item, "Score": score} for item, score in zip(items, scores, strict=True)]
    body = text.encode() if content is None else dump(content)
    return Reply(body, version=served.version, family=served.family, policy=listed.policy, arm=arm)


def _keep(service: Service, impression: Impression) -> None:
    if service.recorder is not None:
        service.recorder.add(impression)


def _failure(request: Request, served: Served, user: str, arm: str, trial: str) -> Impression:
    """A request of a trial that was answered with an error."""
    nothing = np.zeros(0)
    return Impression(
        request.id, time.time(), user, served.version, arm, "none", 0, "[]", nothing, trial, None, True, None
    )


def named(engine: Engine, code: int) -> dict[str, Any]:
    """An item as answers name it: its id, and its title where there is one."""
    title = engine.titles[code]
    return {"Id": engine.items[code], "Title": title} if title else {"Id": engine.items[code]}


def _explained(engine: Engine, history: History, listed: Listed, offset: int) -> list[dict[str, Any]]:
    rows = zip(
        listed.items[offset:].tolist(),
        listed.scores[offset:].tolist(),
        listed.probabilities[offset:].tolist(),
        strict=True,
    )
    return [
        {
            **named(engine, code),
            "Score": score,
            "LikeProbability": like,
            "Reasons": [{**named(engine, at), "Share": share} for at, share in engine.reasons(history, code)],
        }
        for code, score, like in rows
    ]


def _codes(engine: Engine, ids: Sequence[str]) -> Any:
    if not ids:
        return _NO_CODES
    found = [engine.items.find(name) for name in ids]
    return np.array([code for code in found if code >= 0], np.int32)


def item_to_item(service: Service, request: Request) -> Reply:
    """GET /api/item-to-item/{name}/{item} and /api/item/{item}/neighbors: what is rated with an item."""
    served = lister(service)
    engine = served.engine
    is_named = request.parts[1] == "item-to-item"
    name = as_id(request.parts[3 if is_named else 2], "the item")
    n = request.number("n", 10, 1, service.settings.max_n)
    offset = request.number("offset", 0, 0, service.settings.max_n)
    code = engine.items.find(name)
    if code < 0:
        raise ProblemError(
            404, f"item {cut(name)}: version {served.version} does not know it; ask for one that was rated"
        )
    items, weights = engine.similar(code, n + offset)
    return _scored(request, served, items[offset:].tolist(), weights[offset:].tolist())


def popular(service: Service, request: Request) -> Reply:
    """GET /api/popular: the items that most have rated."""
    served = service.current()
    n = request.number("n", 10, 1, service.settings.max_n)
    items, counts = served.engine.popular(n, request.number("offset", 0, 0, service.settings.max_n))
    return _scored(request, served, items.tolist(), counts.tolist())


def _scored(request: Request, served: Served, items: list[int], scores: list[float]) -> Reply:
    engine, titles = served.engine, request.flag("titles")
    content = [
        {**(named(engine, item) if titles else {"Id": engine.items[item]}), "Score": score}
        for item, score in zip(items, scores, strict=True)
    ]
    return Reply(dump(content), version=served.version, family=served.family)
