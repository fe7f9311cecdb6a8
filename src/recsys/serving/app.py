"""The ASGI application: routes, keys, limits, metrics. Without a framework, which would double a request's cost."""

import asyncio
import hmac
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from recsys.serving import events, lists, pages, scores
from recsys.serving.http import ProblemError, Receive, Reply, Request, Scope, Send, dump, path_parts
from recsys.serving.metrics import exposition
from recsys.serving.record import TURN_SECONDS
from recsys.serving.request_log import RequestLog
from recsys.serving.service import Service
from recsys.serving.trial_page import trial_samples

Handler = Callable[[Service, Request], Reply | Awaitable[Reply]]
_FOLLOW_SECONDS = 0.1
_LAG_SECONDS = 0.05
WHOLE = "recsys.reply"
"""In a request's scope, where the server has it: sends a reply of status 200, whose headers are lines, at once. Takes
the lines and the body, and returns whether it was sent."""
UNDER_WAY = "recsys.under_way"
"""There too: the requests that the server has begun with and not answered, this one among them."""
_FEW = 8  # of those: with more, the first one would wait long for the last
_PROBLEM = b"application/problem+json"


def _metrics(service: Service, request: Request) -> Reply:
    service.metrics.unshared.set(service.store.sharing()[0])
    return Reply(
        exposition([*service.monitored.samples(), *trial_samples(service.judged.content())]),
        b"text/plain; version=0.0.4; charset=utf-8",
    )


# Method, path with * for a part, name in metrics, handler, what a key has to be for: nothing, reading or feedback.
ROUTES: tuple[tuple[str, str, str, Handler, str], ...] = (
    ("GET", "api/recommend/*", "recommend", lists.recommend, "read"),
    ("GET", "api/recommend/*/*", "recommend", lists.recommend, "read"),  # a category, which ratings do not have
    ("POST", "api/session/recommend", "session", lists.session, "read"),
    ("GET", "api/item-to-item/*/*", "item_to_item", lists.item_to_item, "read"),
    ("GET", "api/item/*/neighbors", "item_to_item", lists.item_to_item, "read"),
    ("GET", "api/popular", "popular", lists.popular, "read"),
    ("POST", "api/feedback", "feedback", events.give, "feedback"),
    ("PUT", "api/feedback", "feedback", events.give, "feedback"),
    ("POST", "api/registry-changed", "webhook", events.registry_changed, ""),
    ("GET", "api/user/*/feedback", "feedback_of_user", events.of_user, "read"),
    ("GET", "api/user/*/feedback/*", "feedback_of_user", events.of_user, "read"),
    ("GET", "api/status", "status", pages.status, "read"),
    ("GET", "api/user/*/history", "history", pages.history, "read"),
    ("GET", "api/health/live", "live", pages.live, ""),
    ("GET", "api/health/ready", "ready", pages.ready, ""),
    ("POST", "invocations", "invocations", scores.invocations, "read"),
    ("GET", "ping", "ping", pages.ping, ""),
    ("GET", "health", "ping", pages.ping, ""),
    ("GET", "version", "version", pages.version, ""),
    ("GET", "v2", "metadata", pages.server_metadata, ""),
    ("GET", "v2/health/live", "live", pages.live, ""),
    ("GET", "v2/health/ready", "ready", pages.ready, ""),
    ("GET", "v2/models/*", "metadata", scores.model_metadata, "read"),
    ("GET", "v2/models/*/ready", "ready", pages.model_ready, ""),
    ("POST", "v2/models/*/infer", "infer", scores.infer, "read"),
    ("GET", "v2/models/*/versions/*", "metadata", scores.model_metadata, "read"),
    ("GET", "v2/models/*/versions/*/ready", "ready", pages.model_ready, ""),
    ("POST", "v2/models/*/versions/*/infer", "infer", scores.infer, "read"),
    ("GET", "v1/models/*", "ready", pages.model_ready_v1, ""),
    ("POST", "v1/models/*:predict", "predict", scores.predict, "read"),
    ("GET", "metrics", "metrics", _metrics, "read"),
    ("GET", "api/monitor", "monitor", pages.monitor, "read"),
    ("GET", "api/trial", "trial", pages.trial, "read"),
    ("GET", "status", "page", pages.status_page, ""),
    ("GET", "", "page", pages.page, ""),
    ("GET", "docs", "docs", pages.docs, ""),
    ("GET", "openapi.json", "docs", pages.openapi, ""),
)


@lru_cache
def _by_whom(version: str, family: str, arm: str, policy: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that say who answered, none where no version did."""
    named = {"version": version, "family": family, "arm": arm, "policy": policy} if version else {}
    return tuple((f"x-recsys-{name}".encode(), value.encode()) for name, value in named.items() if value)


@lru_cache
def _lines(version: str, family: str, arm: str, policy: str) -> bytes:
    """The same as lines."""
    return b"".join(b"%b: %b\r\n" % header for header in _by_whom(version, family, arm, policy))


class _Router:
    """Finds a route by the number of the path's parts, then part by part."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, int], list[tuple[tuple[str, ...], str, Handler, str]]] = {}
        for method, path, name, handler, right in ROUTES:
            parts = tuple(path.split("/"))
            self._routes.setdefault((method, len(parts)), []).append((parts, name, handler, right))

    def find(self, method: str, parts: tuple[str, ...]) -> tuple[str, Handler, str]:
        for pattern, name, handler, right in self._routes.get((method, len(parts)), ()):
            if all(one in ("*", part) or _ends(one, part) for one, part in zip(pattern, parts, strict=True)):
                return name, handler, right
        for (other, size), routes in self._routes.items():
            if size == len(parts) and any(
                all(one in ("*", part) for one, part in zip(route[0], parts, strict=True)) for route in routes
            ):
                raise ProblemError(405, f"this address answers {other}, not {method[:20]}; see /docs")
        raise ProblemError(404, "there is nothing at this address; /docs lists what there is")


def _ends(pattern: str, part: str) -> bool:
    return pattern.startswith("*:") and part.endswith(pattern[1:])


class App:
    """The application of one worker."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._router = _Router()
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        settings = service.settings
        self._log = RequestLog(settings.log)
        self._keys = {
            "": (),
            "read": tuple(key.encode() for key in settings.read_keys),
            "feedback": tuple(key.encode() for key in settings.feedback_keys or settings.read_keys),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if scope["type"] != "http":
            return None
        started = time.perf_counter()
        request = Request(scope, f"{self._prefix}{next(self._numbers):x}")
        name = "none"
        try:
            request.parts = path_parts(scope)
            name, handler, right = self._router.find(request.method, request.parts)
            self._check(request, right)
            if request.method != "GET":
                request.body = await asyncio.wait_for(self._body(request, receive), self.service.settings.body_seconds)
            answer = handler(self.service, request)
            reply = answer if isinstance(answer, Reply) else await answer
            if 1 < len(scope.get(UNDER_WAY, ())) <= _FEW and self.service.trial is None:
                # Those that wait are computed one after the other, and then answered: a list drives all else out of the
                # processor's cache. In a trial the challenger may be next, which comes after the reply.
                await asyncio.sleep(0)
        except Exception as error:
            reply = self._refusal(error)
        await self._send(send, request, reply)
        metrics, arm, seconds = (
            self.service.metrics,
            reply.arm if reply.version else "",
            time.perf_counter() - started,
        )
        metrics.requests(name, reply.status, reply.version, arm).inc()
        metrics.seconds(name, reply.version, arm).observe(seconds)
        if self._log.is_on:
            self._log.write(request, name, reply, seconds)
        return None

    def _check(self, request: Request, right: str) -> None:
        if right and self.service.lag > self.service.settings.max_lag:
            raise ProblemError(503, f"requests wait {self.service.lag:.1f} s already; send it again in a second", 1)
        keys = self._keys[right]
        if keys:
            given = (request.header(b"x-api-key") or request.header(b"authorization").removeprefix("Bearer ")).encode()
            # All are compared, so that the time tells nothing.
            if not sum(hmac.compare_digest(given, key) for key in keys):
                raise ProblemError(401, f"a key for {right} is needed; send it in the header X-API-Key")

    async def _body(self, request: Request, receive: Receive) -> bytes:
        most = self.service.settings.max_body
        said = request.header(b"content-length")
        parts, size, more = [], int(said) if said.isdigit() else 0, True
        if size > most:
            raise ProblemError(413, f"a body of at most {most:,} bytes is taken, got {size:,}; send it in parts")
        size = 0
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ProblemError(400, "the body ended before its end")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > most:
                raise ProblemError(413, f"a body of at most {most:,} bytes is taken; send it in parts")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _refusal(self, error: Exception) -> Reply:
        if isinstance(error, TimeoutError):
            error = ProblemError(408, f"the body did not arrive within {self.service.settings.body_seconds:g} s")
        if not isinstance(error, ProblemError):
            self.service.report(error)
            error = ProblemError(500, "this is a fault of the server, which its log tells more of; send it again later")
        self.service.metrics.refused.labels(str(error.status)).inc()
        content = {
            "type": "about:blank",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": str(error),
        }
        retry = () if error.retry_after is None else ((b"retry-after", b"%d" % error.retry_after),)
        return Reply(dump(content), _PROBLEM, error.status, headers=retry)

    async def _send(self, send: Send, request: Request, reply: Reply) -> None:
        who = reply.version, reply.family, reply.arm, reply.policy
        whole = request.scope.get(WHOLE)
        if whole is not None and reply.status == HTTPStatus.OK and not reply.headers:
            given = reply.kind, len(reply.body), request.id.encode(), _lines(*who)
            if whole(b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b" % given, reply.body):
                return
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", reply.kind),
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", request.id.encode()),
            *reply.headers,
            *_by_whom(*who),
        ]
        if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message: dict[str, Any] = await receive()
            if message["type"] == "lifespan.startup":
                self.service.follow()
                self._tasks = [asyncio.create_task(task()) for task in (self._follow, self._watch_lag, self._record)]
                await send({"type": "lifespan.startup.complete"})
            else:
                for task in self._tasks:
                    task.cancel()
                await asyncio.to_thread(self.service.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            if self.service.is_behind():
                await asyncio.to_thread(self.service.follow)  # the old version answers meanwhile

    async def _watch_lag(self) -> None:
        """Measure how long what is ready to run waits for its turn."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_LAG_SECONDS)
            self.service.lag = max(0.0, time.perf_counter() - before - _LAG_SECONDS)

    async def _record(self) -> None:
        """Hand what was served to the record, between two requests."""
        recorder = self.service.recorder
        while recorder is not None:
            await asyncio.sleep(TURN_SECONDS)
            recorder.turn()
