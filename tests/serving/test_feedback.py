import asyncio
import sqlite3
import threading

import pytest

from recsys.serving import feedback
from recsys.serving.feedback import Event, FeedbackStore, UnavailableError


def event(key, item="i1", value=4.0, user="u", kind="rating"):
    return Event(key, user, item, kind, value, "", 1.0, None)


@pytest.fixture
def store(tmp_path):
    opened = FeedbackStore(tmp_path / "feedback.db", most_waiting=5)
    yield opened
    opened.close()


def test_a_key_counts_once_and_is_replaced_where_asked(store):
    async def give():
        return [
            await store.add([event("a"), event("b", "i2", 3.0)]),
            await store.add([event("a", value=1.0)]),
            await store.add([event("b", "i2", 5.0)], replace=True),
        ]

    assert asyncio.run(give())[:2] == [2, 0]
    assert store.of_user("u") == [("i1", 4.0), ("i2", 5.0)]


def test_an_event_is_no_rating(store):
    asyncio.run(store.add([event("a", kind="click", value=1.0)]))
    assert store.of_user("u") == [("i1", None)]


def test_another_process_s_store_sees_what_was_added(store, tmp_path):
    other = FeedbackStore(tmp_path / "feedback.db")
    for number in range(5):
        asyncio.run((store, other)[number % 2].add([event(str(number), f"i{number}")]))
        assert len(store.of_user("u")) == len(other.of_user("u")) == number + 1
    other.close()


@pytest.mark.parametrize("kind", [sqlite3.OperationalError, OSError, OverflowError, UnicodeEncodeError])
def test_what_cannot_be_written_is_refused_and_the_next_is_tried_again(store, monkeypatch, kind):
    real = feedback._commit
    arguments = ("utf-8", "\ud800", 0, 1) if kind is UnicodeEncodeError else ()

    def full(*_):
        raise kind(*arguments, "database or disk is full")

    monkeypatch.setattr(feedback, "_commit", full)
    with pytest.raises(UnavailableError, match="disk is full"):
        asyncio.run(store.add([event("a")]))
    assert "disk is full" in store.problem
    monkeypatch.setattr(feedback, "_commit", real)
    assert asyncio.run(store.add([event("a")])) == 1
    assert store.problem == ""


def test_too_many_that_wait_are_refused(store, monkeypatch):
    free = threading.Event()
    real = feedback._commit

    def slow(*arguments):
        free.wait()
        return real(*arguments)

    async def give():
        first = asyncio.create_task(store.add([event(str(number)) for number in range(5)]))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="5 events wait"):
            await store.add([event("x")])
        free.set()
        return await first

    monkeypatch.setattr(feedback, "_commit", slow)
    assert asyncio.run(give()) == 5
