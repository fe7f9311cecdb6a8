"""Handlers of feedback."""

import asyncio
import base64
import hashlib
import hmac
import sys
import time
from typing import Any

from recsys.serving.feedback import RATING, Event, UnavailableError
from recsys.serving.http import ProblemError, Reply, Request, as_id, cut, dump
from recsys.serving.lists import rating_within
from recsys.serving.service import CALL, Service

_EXAMPLE = '{"FeedbackType": "rating", "UserId": "1", "ItemId": "2", "Value": 4}'
_LONGEST = 128  # characters of a type, a time or a key
_SUCH = {"Timestamp": ", such as 2026-11-30T12:00:00Z,"}


async def give(service: Service, request: Request) -> Reply:
    """POST or PUT /api/feedback: an event or a list of them; answered once they are on the disk.

    An event counts once: by the header Idempotency-Key, or else by user, item, type and, where given, timestamp. The
    first value counts for POST, the last for PUT.
    """
    body = request.json()
    found = body if isinstance(body, list) else [body]
    if len(found) > service.settings.max_batch:
        raise ProblemError(413, f"at most {service.settings.max_batch} events are taken, got {len(found)}; send fewer")
    key = request.header(b"idempotency-key")[:_LONGEST]
    received = time.time()
    events = [_event(service, event, row, key, received, request) for row, event in enumerate(found)]
    try:
        async with asyncio.timeout(service.settings.feedback_seconds):
            new = await service.store.add(events, replace=request.method == "PUT")
    except UnavailableError as error:
        service.metrics.feedback.labels("refused").inc(len(events))
        raise ProblemError(
            503, f"feedback cannot be kept now ({error}); nothing of it counts, send it again", 2
        ) from None
    except TimeoutError:
        service.metrics.feedback.labels("refused").inc(len(events))
        raise ProblemError(
            503, "feedback waits for the disk and is not acknowledged; send it again with the same Idempotency-Key", 2
        ) from None
    service.metrics.feedback.labels("new").inc(new)
    service.metrics.feedback.labels("known").inc(len(events) - new)
    return Reply(dump({"RowAffected": new}))


def _event(service: Service, event: Any, row: int, key: str, received: float, request: Request) -> Event:
    if not isinstance(event, dict):
        raise ProblemError(400, f"event {row}: an object such as {_EXAMPLE} is needed, got {cut(event)}")
    user, item = (as_id(event.get(name), f"event {row}: {name}") for name in ("UserId", "ItemId"))
    kind, moment = _text(event, "FeedbackType", RATING, row), _text(event, "Timestamp", "", row)
    value = event.get("Value")
    if kind == RATING:
        value = rating_within(value, service.current().engine, f"event {row}")
    elif value is not None:
        value = _number(value, row)
    # A rating without a time is another one each time it is sent: people change their minds.
    unique = "" if moment or kind != RATING or request.method == "PUT" else request.id
    parts = [key, str(row)] if key else [kind, user, item, moment, unique]
    named = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
    shown = event.get("RequestId")
    shown = _storable(shown[:64]) if isinstance(shown, str) else None
    return Event(named, user, item, kind, value, moment, received, shown)


def _number(value: object, row: int) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    raise ProblemError(400, f"event {row}: Value: a number or nothing is needed, got {cut(value)}")


def _storable(text: str) -> str:
    """The text with a mark in the place of halves of surrogate pairs, which UTF-8 has no bytes for."""
    return text.encode(errors="replace").decode()


def _text(event: dict[str, Any], name: str, default: str, row: int) -> str:
    value = event.get(name, default)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ProblemError(
            400,
            f"event {row}: {name}: text of at most {_LONGEST} characters{_SUCH.get(name, '')} is needed, got "
            f"{cut(value)}",
        )
    return _storable(value)


def registry_changed(service: Service, request: Request) -> Reply:
    """POST /api/registry-changed: MLflow's webhook of an alias; the registry is looked at now, not at the next look.

    What the body says is not used, so that a repetition of an old call only makes it look once more.
    """
    secret = service.settings.webhook_secret
    delivery, moment, given = (
        request.header(name) for name in (b"x-mlflow-delivery-id", b"x-mlflow-timestamp", b"x-mlflow-signature")
    )
    signed = f"{delivery}.{moment}.".encode("latin-1") + request.body
    expected = "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    if not secret or not hmac.compare_digest(given.encode(), expected.encode()):
        raise ProblemError(
            401, "a call signed by MLflow is needed; give the webhook and RECSYS_WEBHOOK_SECRET one secret"
        )
    (service.folder / CALL).touch()
    return Reply(dump({"looking": True}))


def of_user(service: Service, request: Request) -> Reply:
    """GET /api/user/{user}/feedback[/{type}]: what a user gave, the newest first."""
    user = as_id(request.parts[2], "the user")
    kind = request.parts[4] if len(request.parts) > 4 else None
    n = request.number("n", 100, 1, service.settings.max_batch)
    rows = service.store.events_of_user(user, kind, n)
    content = [
        {"FeedbackType": row.kind, "UserId": row.user, "ItemId": row.item, "Value": row.value, "Timestamp": row.moment}
        for row in rows
    ]
    return Reply(dump(content))
