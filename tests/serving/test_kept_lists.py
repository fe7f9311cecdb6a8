"""Lists that are kept answer as lists that are made, whatever was rated, asked for or promoted meanwhile."""

import asyncio
import itertools
import json
import threading
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.serving import lists
from recsys.serving.engine import Engine
from recsys.serving.exploration import Exploration
from recsys.serving.feedback import Event
from recsys.serving.form import open_form
from recsys.serving.http import Request, dump_ids
from recsys.serving.kept_lists import LARGEST, KeptLists, Key, MadeList
from recsys.serving.service import POINTER, Service
from recsys.serving.settings import ServingSettings
from tests.support.serving_site import form

USERS = ["u1", "u2", "u13", "stranger", "ü%2F"]
ITEMS = [f"i{number}" for number in range(0, 24, 3)]
QUERIES = ["", "n=3", "n=3&offset=1", "n=3&offset=2", "n=1000", "titles=true", "explain=true&n=2", "explain=true&n=3",
           "n=4&exclude=i4,i6", "n=4&exclude=i6,i8", "n=4&candidates=i1,i2,i9,i5,i8", "n=2&candidates=i9,i1,i2,i5,i8",
           "n=4&candidates=i9,i1,i2,i5,i8&exclude=i2", "n=3&candidates=i9,i5,i8"]  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(USERS), st.sampled_from(QUERIES), st.sampled_from(["1", "2"])),
    st.tuples(st.just("ask"), st.sampled_from(USERS[:2]), st.just(""), st.just("1")),
    st.tuples(st.just("rate"), st.sampled_from(USERS), st.sampled_from(ITEMS), st.sampled_from([1.0, 4.0, 5.0, None])),
    st.tuples(st.just("serve"), st.sampled_from(["one", "two"]), st.none(), st.none()),
    st.tuples(st.just("try"), st.sampled_from([None, 0.5]), st.sampled_from(["one", "two"]), st.none()),
)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    titles = {"i2": "Two"}
    return {"one": form(folder / "one", titles=titles), "two": form(folder / "two", "2", liked=0.6)}


class Recorded:
    """In place of the record: what is kept of each list, besides when it was asked for and how long it took."""

    def __init__(self):
        self.rows = []

    def add(self, one):
        arrays = [None if part is None else part.tolist() for part in (one.likes, one.propensities)]
        beside = one.beside and {**json.loads(one.beside), "seconds": 0}
        rest = one._replace(moment=0, seconds=one.seconds and 0, likes=None, propensities=None, beside=None)
        self.rows.append((rest, arrays, beside))

    def close(self):
        pass


def worker(folder, kept_lists, explore):
    """The state of one worker of a server, in this process."""
    service = Service(ServingSettings(folder=str(folder), record=False, kept_lists=kept_lists, explore=explore))
    service.recorder = Recorded()
    return service


def ask(service, user, query="", version="1", name="r"):
    scope = {"method": "GET", "query_string": query.encode(), "headers": [(b"x-api-version", version.encode())]}
    request = Request(scope, name)
    request.parts = ("api", "recommend", user)
    return lists.recommend(service, request)


def rate(service, user, item, value):
    kind = "read" if value is None else "rating"
    event = Event(f"k{next(_numbers)}", user, item, kind, value, "", 0.0, None)
    asyncio.run(service.store.add([event]))


def point_at(folder, content):
    (folder / f"aside{next(_numbers)}").write_text(json.dumps(content))
    pointer = folder / POINTER
    before = pointer.stat().st_mtime_ns if pointer.exists() else 0
    while not pointer.exists() or pointer.stat().st_mtime_ns == before:  # which a change is known by
        pointer.write_text(json.dumps(content))


@given(steps=st.lists(STEPS, min_size=5, max_size=40), explore=st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_workers_that_keep_lists_answer_and_record_as_one_that_keeps_none(forms, tmp_path_factory, steps, explore):
    folder = tmp_path_factory.mktemp("server")
    pointer = {"form": str(forms["one"])}
    point_at(folder, pointer)
    with (
        closing(worker(folder, 0, explore)) as plain,
        closing(worker(folder, 3, explore)) as one,
        closing(worker(folder, 100, explore)) as other,
    ):
        workers = (plain, one, other)
        for service in workers:
            service.follow()
        for number, (what, first, second, third) in enumerate(steps):
            if what == "ask":
                expected, *found = (ask(service, first, second, third, f"r{number}") for service in workers)
                assert found == [expected, expected]
            elif what == "rate":
                rate(workers[number % 3], first, second, third)
            else:
                pointer = dict(pointer)
                if what == "serve":
                    pointer["form"] = str(forms[first])
                else:
                    pointer["trial"] = {"id": f"t{number}", "share": first, "form": str(forms[second])}
                point_at(folder, pointer)
                for service in workers:
                    service.follow()
        assert one.recorder.rows == other.recorder.rows == plain.recorder.rows
        assert plain.served.kept is None
        assert len(one.served.kept) <= 3


def hits(service):
    return service.metrics.kept_lists("hit")._value.get()


@pytest.fixture
def service(tmp_path, forms):
    (tmp_path / POINTER).write_text(json.dumps({"form": str(forms["one"])}))
    with closing(worker(tmp_path, 100, 0.0)) as found:
        found.follow()
        yield found


def test_the_second_time_a_list_is_not_made(service, monkeypatch):
    first = ask(service, "u2")
    monkeypatch.setattr(Engine, "recommend", None)
    assert ask(service, "u2") == first
    assert hits(service) == 1
    with pytest.raises(TypeError):
        ask(service, "u2", "n=9")
    one, other = (row[0]._replace(request="") for row in service.recorder.rows)
    assert one == other


def test_each_thing_that_may_be_asked_for_has_its_own_list(service, tmp_path):
    """Asked for twice, after all others, by users of and without a history."""
    with closing(worker(tmp_path, 0, 0.0)) as plain:
        plain.follow()
        for user in ("u2", "stranger"):
            expected = [ask(plain, user, query) for query in QUERIES]
            assert user == "stranger" or len({answer.body for answer in expected}) == len(QUERIES)
            for _ in range(2):
                assert [ask(service, user, query) for query in QUERIES] == expected
    keys = len(QUERIES) - 2  # titles and reasons make no other list
    assert hits(service) == 2 * (2 * len(QUERIES) - keys)
    assert service.recorder.rows == 2 * plain.recorder.rows[: len(QUERIES)] + 2 * plain.recorder.rows[len(QUERIES) :]


def test_feedback_makes_another_list_though_it_names_nothing_known(service):
    ask(service, "u2")
    rate(service, "u2", "thing", 5.0)
    ask(service, "u2")
    assert hits(service) == 0
    assert len(service.served.kept) == 2


@pytest.mark.parametrize("share", [None, 0.5])
def test_while_a_version_is_on_trial_every_list_is_made(service, forms, tmp_path, share):
    """Guards compare how often, and how fast, two versions make lists; afterwards what was kept before counts."""
    ask(service, "u2")
    champion = {"form": str(forms["one"])}
    point_at(tmp_path, {**champion, "trial": {"id": "t", "share": share, "form": str(forms["two"])}})
    service.follow()
    seconds = []
    service.recorder.add = lambda one: seconds.append(one.seconds)
    for user in ("u2", "u3", "u2", "u3"):
        ask(service, user)
    assert len(set(seconds)) == 4
    point_at(tmp_path, champion)
    service.follow()
    ask(service, "u2")
    assert (hits(service), len(service.served.kept)) == (1, 1)


def test_a_version_takes_its_lists_along(service, forms, tmp_path):
    ask(service, "u2")
    before = service.served.kept
    point_at(tmp_path, {"form": str(forms["two"])})
    service.follow()
    assert ask(service, "u2").version == "2"
    assert service.served.kept is not before
    assert (hits(service), len(service.served.kept)) == (0, 1)


def test_a_list_that_is_drawn_is_not_kept(tmp_path, forms):
    (tmp_path / POINTER).write_text(json.dumps({"form": str(forms["one"])}))
    with closing(worker(tmp_path, 10, 0.5)) as service:
        service.follow()
        drawn = [name for name in map(str, range(40)) if Exploration(0.5, name).draws]
        for name in drawn:
            assert ask(service, "u2", name=name).policy == "explored"
        assert len(service.served.kept) == 0
        usual = next(name for name in map(str, range(40)) if name not in drawn)
        assert [ask(service, "u2", name=usual).policy for _ in range(2)] == ["personal"] * 2
        assert (hits(service), len(service.served.kept)) == (1, 1)


def made(engine, user, n, given=()):
    history = engine.history(user, {engine.items.find(item): rating for item, rating in given})
    listed = engine.recommend(user, history, n)
    items = engine.items.names(listed.items)
    return MadeList(user, history, listed, items, dump_ids(items), 0.1)


def test_the_memory_of_what_is_kept_is_bounded(forms):
    engine = Engine.of_form(open_form(forms["one"]))
    random, kept = np.random.default_rng(0), KeptLists(200)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1500):
            given = tuple((f"{'ü' * int(random.integers(500))}{at}", 4.0) for at in range(random.integers(30)))
            rated = tuple((f"i{at}", 4.0) for at in range(random.integers(1, 20)))
            key = Key(f"{number}" * int(random.integers(1, 90)), given + rated, 20, 0, given[:1], ())
            kept.keep(key, made(engine, int(random.integers(24)), 20, rated))
        assert len(kept) == 200
        assert tracemalloc.get_traced_memory()[0] - before < 200 * LARGEST + 500_000  # and what engines remember
    finally:
        tracemalloc.stop()


def test_the_list_that_was_not_asked_for_longest_makes_room_and_a_large_one_is_not_kept(forms):
    engine = Engine.of_form(open_form(forms["one"]))
    one, kept = made(engine, 1, 3), KeptLists(2)
    keys = [Key(f"u{number}", (), 3, 0, (), ()) for number in range(3)]
    kept.keep(keys[0], one)
    kept.keep(keys[1], one)
    assert kept.find(keys[0]) is one
    kept.keep(keys[2], one)
    assert [kept.find(key) for key in keys] == [one, None, one]
    large = Key("u4", (), 3, 0, ("x" * 500,) * 20, ())
    kept.keep(large, one)
    assert kept.find(large) is None
    assert len(kept) == 2


def counted(server, outcome):
    lines = server.get("metrics").text.splitlines()
    found = [line.split()[-1] for line in lines if line.startswith(f'recsys_kept_lists_total{{outcome="{outcome}"')]
    return sum(map(float, found))


@pytest.fixture
def connections(server):
    """A connection to each of the two workers."""
    found = {}
    while len(found) < 2:
        session = requests.Session()
        answer = session.get(f"{server.address}/ping", timeout=120)
        found.setdefault(answer.headers["x-request-id"][:12], session)
    yield list(found.values())
    for session in found.values():
        session.close()


@pytest.mark.process
def test_a_rating_changes_the_lists_that_workers_keep_at_once(server, connections):
    def lists_of(user):
        return [
            session.get(f"{server.address}/api/recommend/{user}?n=6", timeout=120).json() for session in connections
        ]

    for user in ("u5", "u6", "nobody yet"):
        before = lists_of(user)
        known = counted(server, "hit")
        assert lists_of(user) == before
        assert counted(server, "hit") == known + 2
        for _ in range(4):
            first = lists_of(user)[0][0]
            assert server.post("api/feedback", {"UserId": user, "ItemId": first, "Value": 5}).status_code == 200
            assert all(first not in found for found in lists_of(user))


@pytest.mark.process
def test_while_a_user_rates_no_list_has_what_was_acknowledged_before_it_was_asked_for(server, connections):
    acknowledged, wrong, done = [], [], threading.Event()

    def watch(session):
        while not done.is_set():
            known = set(acknowledged)
            found = session.get(f"{server.address}/api/recommend/racer?n=5", timeout=120).json()
            wrong.extend(known & set(found))

    threads = [threading.Thread(target=watch, args=(session,)) for session in connections]
    for thread in threads:
        thread.start()
    try:
        for number in range(16):
            server.post("api/feedback", {"UserId": "racer", "ItemId": f"i{number}", "Value": 4})
            acknowledged.append(f"i{number}")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
