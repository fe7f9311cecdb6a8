"""The log of requests, where it is asked for: a line of JSON each, on standard error."""

import logging
from typing import Literal

from recsys.serving.http import Reply, Request, dump

Kind = Literal["none", "requests", "ids"]
_log = logging.getLogger("recsys.requests")


class RequestLog:
    """Writes a line a request. Ids stand in paths and queries, and so in the log only where it was asked for ids."""

    def __init__(self, kind: Kind) -> None:
        """Take what to write; for "none" nothing is."""
        self.is_on = kind != "none"
        self._with_ids = kind == "ids"
        if self.is_on:
            _log.setLevel(logging.INFO)

    def write(self, request: Request, route: str, reply: Reply, seconds: float) -> None:
        """Write one request and what it was answered. Bodies and headers, keys among them, are never written."""
        content = {
            "request": request.id,
            "method": request.method[:20],
            "route": route,
            "status": reply.status,
            "ms": round(1000 * seconds, 2),
            "version": reply.version,
            "policy": reply.policy,
        }
        if self._with_ids:
            content["path"] = request.scope["path"][:1000]
            content["query"] = request.scope["query_string"].decode("latin-1")[:1000]
        _log.info("%s", dump({name: value for name, value in content.items() if value != ""}).decode())
