import asyncio
import os
import socket

import pytest

from recsys.serving import connections
from recsys.serving.connections import Acceptor, Counts, open_counts, wait_for_others


class Protocol(asyncio.Protocol):
    """Counts as the server's does, and says what happened."""

    acceptor: Acceptor

    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        self.made.append(transport)

    def connection_lost(self, exc):
        self.acceptor.gone()


@pytest.fixture
def counts():
    descriptor = open_counts(2)
    found = Counts(descriptor)
    for worker in (0, 1):
        found.reset(worker)
    yield found
    os.close(descriptor)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def connect(listening):
    return socket.create_connection(listening.getsockname())


async def until(true):
    while not true():
        await asyncio.sleep(0.01)


def of(counts):
    return [counts.of(worker) for worker in (0, 1)]


def test_counts_are_those_of_all_who_hold_the_file():
    descriptor = open_counts(3)
    one, other = Counts(descriptor), Counts(descriptor)
    for worker in range(3):
        one.reset(worker)
    one.add(1, 5)
    other.add(1, -2)
    assert [one.of(worker) for worker in range(3)] == [0, 3, 0]
    assert other.has_more(1)
    assert not other.has_more(0)
    one.reset(1)
    assert not other.has_more(1)
    os.close(descriptor)


def test_who_is_up_waits_for_those_that_began_with_it_and_have_not_died():
    descriptor = open_counts(3)
    counts = Counts(descriptor)

    async def start():
        counts.reset(0)
        waiting = asyncio.create_task(wait_for_others(counts, lambda: False))
        await asyncio.sleep(0.05)
        counts.reset(1)  # up
        await asyncio.sleep(0.05)
        assert not waiting.done()
        counts.reset(2)  # it died
        await waiting
        await wait_for_others(counts, lambda: False)  # started in place of that one

    asyncio.run(start())
    os.close(descriptor)


def test_one_that_hangs_or_the_end_lets_the_others_go_on(monkeypatch):
    descriptor = open_counts(2)
    counts = Counts(descriptor)
    counts.reset(0)
    asyncio.run(wait_for_others(counts, lambda: True))
    monkeypatch.setattr(connections, "_UP_SECONDS", 0.01)
    asyncio.run(wait_for_others(counts, lambda: False))
    assert counts.are_starting()
    counts.add(0, 1)
    assert of(counts) == [1, 0]
    assert counts.has_more(0)  # what comes is left to the other for a moment
    os.close(descriptor)


def test_many_connections_need_not_be_equally_many(counts):
    counts.add(0, 100)
    counts.add(1, 112)
    assert not counts.has_more(1)
    counts.add(1, 1)
    assert counts.has_more(1)


def test_what_waits_is_taken_until_another_has_fewer_and_left_to_it(counts, listening, monkeypatch):
    monkeypatch.setattr(connections, "_LEAVE_SECONDS", 3600)
    made = []

    async def serve():
        counts.add(1, 2)
        clients = [connect(listening) for _ in range(4)]
        acceptor = Protocol.acceptor = Acceptor(listening, counts, 0, lambda: Protocol(made))
        await until(lambda: len(made) == 3)
        assert of(counts) == [3, 2]
        left, _ = listening.accept()  # as the other worker does
        clients[0].close()
        await until(lambda: of(counts) == [2, 2])
        acceptor.end()
        for one in (left, *clients):
            one.close()
        await until(lambda: of(counts) == [0, 2])

    asyncio.run(serve())


def test_what_nobody_takes_is_taken_after_a_moment(counts, listening):
    made = []

    async def serve():
        counts.add(0, 5)  # the other has none, and is dead or at a long request
        acceptor = Protocol.acceptor = Acceptor(listening, counts, 0, lambda: Protocol(made))
        clients = [connect(listening) for _ in range(3)]
        await until(lambda: len(made) == 3)
        acceptor.end()
        for one in clients:
            one.close()
        await until(lambda: of(counts) == [5, 0])

    asyncio.run(serve())


def test_without_a_descriptor_left_it_goes_on_when_there_is_one(counts, monkeypatch):
    monkeypatch.setattr(connections, "_PAUSE_SECONDS", 0.01)
    made, refusals = [], iter([OSError(24, "Too many open files"), ConnectionAbortedError()])

    class Full(socket.socket):
        def accept(self):
            if (error := next(refusals, None)) is not None:
                raise error
            return super().accept()

    async def serve(listening):
        acceptor = Protocol.acceptor = Acceptor(listening, counts, 0, lambda: Protocol(made))
        with connect(listening):
            await until(lambda: len(made) == 1)
            acceptor.end()
        await until(lambda: of(counts) == [0, 0])

    with Full() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        asyncio.run(serve(listening))
