"""The program of one worker: answers on a socket that the supervisor opened, until the supervisor ends.

Its settings come as the first line of standard input, where no other user of the machine reads keys; the end of
standard input is the end of the supervisor, however it died.
"""

import asyncio
import json
import logging
import resource
import socket
import sys
import threading
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from recsys.serving.app import UNDER_WAY, WHOLE, App
from recsys.serving.connections import Acceptor, Counts, wait_for_others
from recsys.serving.replies import Replies
from recsys.serving.service import Service
from recsys.serving.settings import ServingSettings

_GRACE_SECONDS = 10
_IDLE_SECONDS = 65  # longer than a load balancer keeps a connection
_SWITCH_SECONDS = 0.0005  # that a thread which writes may hold Python's lock while a request waits for it


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, which lets go of a client that connects and sends nothing, or a request's head too slowly."""

    head_seconds = 10.0
    acceptor: Acceptor
    _replies: Replies
    _late: asyncio.TimerHandle | None = None
    _begun = False  # a head, of which the rest is to come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._replies = Replies(transport)
        self.transport = self._replies  # type: ignore[assignment]  # has all that is asked of it
        self._allow(_IDLE_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._begun:  # most heads come whole, and cost no timer
            self._begun = False
            self._allow(self.head_seconds)

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._begun = False
        self._allow(None)
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # the connection is not made another protocol's
            self.scope[WHOLE] = partial(self._reply, self.cycle)  # type: ignore[literal-required]
            self.scope[UNDER_WAY] = self.tasks  # type: ignore[literal-required]

    def _reply(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> bool:
        """Send a whole reply, byte for byte as uvicorn does, which goes through its headers one by one.

        Returns False where that is left to uvicorn: the connection is to be closed, or its client does not read.
        """
        if not cycle.keep_alive or cycle.disconnected or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        first = b"".join(b"%b: %b\r\n" % header for header in cycle.default_headers)
        self._replies.write_whole(b"HTTP/1.1 200 OK\r\n%b%b\r\n%b" % (first, head, body))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_response_complete(self) -> None:
        self._replies.flush()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        self.acceptor.gone()
        super().connection_lost(exc)

    def _allow(self, seconds: float | None) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if seconds is not None:
            self._late = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class _Server(uvicorn.Server):
    """Uvicorn's server, for whom we take the connections."""

    def __init__(self, config: uvicorn.Config, counts: Counts, worker: int) -> None:
        super().__init__(config)
        self._counts, self._worker = counts, worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        assert sockets
        self._counts.reset(self._worker)
        await wait_for_others(self._counts, lambda: self.should_exit)
        _Protocol.acceptor = Acceptor(sockets[0], self._counts, self._worker, self._protocol)

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _Protocol.acceptor.end()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until told to stop."""
    given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection each, idle ones too
    sys.setswitchinterval(_SWITCH_SECONDS)
    service = Service(ServingSettings.model_validate(given["settings"]))
    _Protocol.head_seconds = service.settings.body_seconds
    config = uvicorn.Config(
        App(service),
        loop="uvloop",
        http=_Protocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing asks for the client's address
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, Counts(given["counts"]), given["worker"])

    def watch() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=given["socket"])])


if __name__ == "__main__":
    main()
