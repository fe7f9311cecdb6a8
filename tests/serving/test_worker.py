"""Replies that the protocol writes itself are those that uvicorn writes."""

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from recsys.serving import app
from recsys.serving.app import App
from recsys.serving.service import OnTrial, Service
from recsys.serving.settings import ServingSettings
from recsys.serving.worker import _Protocol
from tests.support.serving_site import form

ASKED = b"%b HTTP/1.1\r\nhost: here\r\n%b\r\n"


class Transport:
    def __init__(self):
        self.sent, self.closed = [], False

    def write(self, data):
        self.sent.append(bytes(data))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return default

    def set_protocol(self, protocol):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


@pytest.fixture
def service(tmp_path):
    found = Service(ServingSettings(folder=str(tmp_path / "serving"), record=False))
    (tmp_path / "serving" / "current.json").write_text(f'{{"form": "{form(tmp_path / "form")}"}}')
    found.follow()
    yield found
    found.close()


def connect(service, connections):
    """Protocols of one server, with their transports."""
    config = uvicorn.Config(App(service), http=_Protocol, lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Mon, 30 Nov 2026 08:00:00 GMT")]
    made = []
    for _ in range(connections):
        protocol, transport = _Protocol(config=config, server_state=state, app_state={}), Transport()
        protocol.acceptor = SimpleNamespace(gone=lambda: None)
        protocol.connection_made(transport)
        made.append((protocol, transport))
    return made


def replies(service, *received, paused=False):
    """What is sent for what is received, a write each, without what differs between two applications."""

    async def serve():
        ((protocol, transport),) = connect(service, 1)
        if paused:
            protocol.pause_writing()
        for data in received:
            protocol.data_received(data)
            for _ in range(20):
                await asyncio.sleep(0)
        if paused:
            assert transport.sent == []
            protocol.resume_writing()
            for _ in range(20):
                await asyncio.sleep(0)
        closed = transport.closed
        protocol.connection_lost(None)
        return [re.sub(rb"x-request-id: \w{12}", b"x-request-id: ", one) for one in transport.sent], closed

    return asyncio.run(serve())


REQUESTS = {
    "a list": [ASKED % (b"GET /api/recommend/u1?n=3", b"")],
    "a list of what is popular": [ASKED % (b"GET /api/recommend/nobody", b"")],
    "scores": [ASKED % (b"POST /api/session/recommend", b"content-length: 2\r\n") + b"[]"],
    "a page": [ASKED % (b"GET /", b"")],
    "an error": [ASKED % (b"GET /nothing", b"")],
    "a head alone": [ASKED % (b"HEAD /ping", b"")],
    "one that closes": [ASKED % (b"GET /api/recommend/u1", b"connection: close\r\n")],
    "several at once": [ASKED % (b"GET /api/recommend/u1", b"") + ASKED % (b"GET /ping", b"")],
    "one after the other": [ASKED % (b"GET /api/recommend/u1", b""), ASKED % (b"GET /api/recommend/u2", b"")],
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("paused", [False, True])
def test_replies_are_those_of_uvicorn(service, monkeypatch, name, paused):
    ours = replies(service, *REQUESTS[name], paused=paused)
    monkeypatch.setattr(app, "WHOLE", "another key, which no server knows")
    assert ours == replies(service, *REQUESTS[name], paused=paused)
    assert ours[0][0].startswith(b"HTTP/1.1 ")


def test_whole_replies_do_not_go_through_uvicorn(service, monkeypatch):
    monkeypatch.setattr(RequestResponseCycle, "send", None)
    (sent,), closed = replies(service, *REQUESTS["a list"])
    assert b"x-recsys-policy: personal" in sent
    assert not closed


@pytest.mark.parametrize("connections", [1, 2, 8, 9])
@pytest.mark.parametrize("trial", [False, True])
def test_a_few_that_wait_are_computed_and_then_answered(service, monkeypatch, connections, trial):
    happened, find = [], service.find_user
    monkeypatch.setattr(service, "find_user", lambda *asked: happened.append("computed") or find(*asked))
    monkeypatch.setattr(Transport, "write", lambda self, data: happened.append("answered"))
    if trial:  # in which the challenger answers beside, after the reply
        served = replace(service.served, version="2")
        service.trial = OnTrial("t", None, served)
        service.recorder = SimpleNamespace(add=lambda one: None, close=lambda: None)

    async def serve():
        made = connect(service, connections)
        for protocol, _ in made:
            protocol.data_received(REQUESTS["a list"][0])
        for _ in range(20):
            await asyncio.sleep(0)
        for protocol, _ in made:
            protocol.connection_lost(None)

    asyncio.run(serve())
    if trial:
        assert happened == ["computed", "answered"] * connections + ["computed"] * connections
    elif connections in (2, 8):
        assert happened == ["computed"] * connections + ["answered"] * connections
    else:  # nobody waits, or too many: the first one is answered before the last is computed
        assert happened[:2] == ["computed", "answered"]
