"""What stands before MLflow's own application: it refuses what MLflow lets through, with and without a login.

`mlflow server` finds the two applications by the entry points in server/plugin.
"""

import json
import os
import re
from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

_ORIGINS = "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_READING = ("GET", "HEAD")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?")
_ARTIFACT = re.compile(r"/+mlflow-artifacts/+(?:artifacts|mpu/+\w+|presigned/+\w+)(?:/+(.*))?", re.DOTALL)
_CREATE_EXPERIMENT = "/mlflow/experiments/create"
_LEAST_DEPTH = 3  # an experiment's number, then a run or `models`, then its files: a DELETE of less takes many at once


def open_app() -> ASGIApp:
    """MLflow's application without a login, behind the gate."""
    from mlflow.server import app
    from mlflow.server.fastapi_app import app as server

    app.before_request(refuse_places)
    return Gate(server, origins())


def login_app() -> ASGIApp:
    """MLflow's application with a login, behind the gate and the brake on wrong passwords."""
    from mlflow.server import app, auth

    from server.brake import Brake, even_out

    server = auth.create_app()
    even_out(auth.store)
    app.before_request(refuse_places)  # after MLflow's own: who has no account learns nothing
    return Gate(Brake(server), origins(), login=True)


def origins() -> list[str]:
    """The origins that may use the server from their pages, beside its own."""
    return [one.strip() for one in os.environ.get(_ORIGINS, "").split(",") if one.strip()]


class Gate:
    """Refuses a request by its Host header, by the page that sent it, or by the artifacts that it would change."""

    def __init__(self, app: ASGIApp, allowed: Collection[str] = (), login: bool = False) -> None:
        """Stand before an application, with a login or without.

        Args:
            app: what answers the requests that are let through.
            allowed: origins as MLflow takes them, with * for any text.
            login: whether who gives no credentials is told no more than that they are needed.
        """
        self.app, self.allowed, self.login = app, allowed, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 with the reason, or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        foreign = is_foreign(origin, host, self.allowed)
        if host and not _HOST.fullmatch(host):
            await answer(send, 403, "the Host header is no name and port")
        elif foreign and (scope["method"] not in _READING):
            await answer(send, 403, f"pages of {origin} may change nothing here; the server's own may")
        elif (reason := artifact_refusal(scope["method"], scope["path"])) is not None:
            if self.login and b"authorization" not in headers:
                await answer(send, 401, "credentials are needed", (b"www-authenticate", b'Basic realm="mlflow"'))
            else:
                await answer(send, 403, reason)
        else:
            if foreign:  # MLflow would let pages of any port of this machine read the answer
                scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"origin"]}
            await self.app(scope, receive, send)


def is_foreign(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether a request comes from a page that is neither the server's own nor of an origin that is allowed."""
    if not origin or any(origin == one or ("*" in one and fnmatch(origin, one)) for one in allowed):
        return False
    return urlsplit(origin).netloc.lower() != host.lower()


def artifact_refusal(method: str, path: str) -> str | None:
    """Why a request may not change the artifacts at a path; None where it may, or where it is about none."""
    if method in (*_READING, "OPTIONS") or (found := _ARTIFACT.search(_decoded(path))) is None:
        return None
    parts = re.split(r"[/\\]", (found[1] or "").rstrip("/"))
    if any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        return "a path of artifacts has no . or .. and nothing empty in it"
    if method == "DELETE" and (parts == [""] or len(parts) < _LEAST_DEPTH):
        return "one request deletes the artifacts of one run or model, not of an experiment or of all"
    return None


def place_refusal(content: Any) -> str | None:
    """Why an experiment, as the body of a request describes it, may not be made; None where it may."""
    if isinstance(content, str):  # MLflow reads JSON within JSON too
        content = json.loads(content)
    if not isinstance(content, dict):
        return None
    for place in (content.get("artifact_location"), content.get("artifactLocation")):
        parts = urlsplit(str(place)) if place else None
        if parts and (parts.scheme != "mlflow-artifacts" or parts.netloc or ".." in _decoded(parts.path).split("/")):
            return "artifact_location: the artifacts of an experiment are kept by this server; leave it out"
    return None


def refuse_places() -> tuple[str, int] | None:
    """For MLflow's Flask application: refuse an experiment whose artifacts would lie outside the server's root."""
    from flask import request

    if request.method != "POST" or not request.path.endswith(_CREATE_EXPERIMENT):
        return None
    try:
        reason = place_refusal(request.get_json(force=True, silent=True))
    except ValueError as error:  # MLflow itself would fail over it
        reason = f"no JSON ({error})"
    if reason is None:
        return None
    return json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": reason}), 400


async def answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer a request in one line."""
    given = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


def _decoded(path: str) -> str:
    """A path without any % escapes, however often it was escaped: MLflow decodes until nothing changes."""
    while (plain := unquote(path)) != path:
        path = plain
    return path
