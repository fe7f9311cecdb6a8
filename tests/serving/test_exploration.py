"""Lists that are drawn, and the propensities that are recorded of them."""

import sqlite3
from collections import Counter

import numpy as np
import pytest

from recsys.serving.compact import make_form
from recsys.serving.engine import Engine
from recsys.serving.exploration import Exploration, Pool
from recsys.serving.record import Impression, Recorder
from tests.support.record_rows import record_rows
from tests.support.record_writers import WriterThread
from tests.support.serving_site import two_tastes

TAKES = np.array([1.0, 1.0, 1.0, 1.0, 0.0])


def pool(uncertain: float = 0.5, *, probit: bool = True) -> Pool:
    """Five items: of equal takes, one surely better than the next, and the last one never taken."""
    return Pool(TAKES, np.array([1.0, 0.6, 0.2, -0.2, 3.0]), np.full(5, uncertain), probit, 1.0)


def drawn(share: float, usual: np.ndarray, requests: int = 3000, **given) -> list[tuple[list[int], np.ndarray]]:
    found = []
    for request in range(requests):
        exploration = Exploration(share, f"r{request}")
        if exploration.draws:
            listed, chances = exploration.draw(pool(**given), usual)
            found.append((listed.tolist(), chances))
        else:
            found.append((usual.tolist(), exploration.of_usual(len(usual))))
    return found


def test_the_share_of_requests_is_drawn_and_a_request_is_drawn_alike_each_time():
    draws = [Exploration(0.1, f"r{request}").draws for request in range(5000)]
    assert sum(draws) == pytest.approx(500, abs=120)
    usual = np.array([0, 1])
    one, other = (Exploration(0.5, "r7").draw(pool(), usual) for _ in range(2))
    assert one[0].tolist() == other[0].tolist()
    assert one[1].tolist() == other[1].tolist()


@pytest.mark.parametrize("probit", [True, False])
def test_propensities_are_how_often_an_item_is_in_the_list(probit):
    """The sum of 1 / propensity over the lists with an item is the number of requests, for every item drawn."""
    found = drawn(0.5, np.array([0, 1]), probit=probit)
    shown = Counter(item for listed, _ in found for item in listed)
    assert set(shown) == {0, 1, 2, 3}, "what is never taken is never drawn"
    for item in (2, 3):  # which only drawn lists show
        chances = [float(chances[listed.index(item)]) for listed, chances in found if item in listed]
        assert np.mean(chances) == pytest.approx(shown[item] / len(found), rel=0.25)
        assert sum(1 / chance for chance in chances) == pytest.approx(len(found), rel=0.3)


def test_of_a_usual_list_the_least_propensity_is_recorded():
    assert Exploration(0.02, "r").of_usual(3).tolist() == [0.98] * 3


def test_what_is_certain_is_not_explored():
    lists = {tuple(listed) for listed, _ in drawn(1.0, np.array([0, 1]), requests=50, uncertain=0.0)}
    assert lists == {(0, 1)}


def test_a_pool_that_is_no_longer_than_the_list_is_listed_whole():
    listed, chances = Exploration(1.0, "r").draw(pool(), np.arange(5))
    assert sorted(listed.tolist()) == [0, 1, 2, 3, 4]
    assert chances.tolist() == [1.0] * 5


def test_the_engine_draws_lists_and_says_so(tmp_path):
    form = make_form(two_tastes(), tmp_path / "form", {"version": "1", "model": "m"}, max_loss=1)
    engine = Engine.of_form(form)
    user = engine.users.find("u0")
    history = engine.history(user)
    usual = engine.recommend(user, history, 3)
    assert usual.propensities is None
    kept = engine.recommend(user, history, 3, exploration=Exploration(1e-9, "r"))
    assert (kept.policy, kept.items.tolist()) == (usual.policy, usual.items.tolist())
    seen = set()
    for request in range(40):
        listed = engine.recommend(user, history, 3, exploration=Exploration(1.0, f"r{request}"))
        assert listed.policy == "explored"
        assert listed.propensities.shape == (3,)
        assert ((listed.propensities > 0) & (listed.propensities <= 1)).all()
        assert not set(listed.items.tolist()) & set(history.items.tolist())
        seen.add(tuple(listed.items.tolist()))
    assert len(seen) > 1


def test_propensities_are_recorded_in_a_file_of_an_earlier_release_too(tmp_path):
    path = tmp_path / "feedback.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "create table served (id integer primary key, request text not null unique, moment real not null, "
            "user text not null, version text not null, arm text not null, policy text not null, "
            "first integer not null, items text not null, likes blob not null)"
        )
    recorder = Recorder(lambda: WriterThread(path), lambda outcome, lists: None)
    likes, chances = np.array([0.5, 0.4]), np.array([0.25, 0.125])
    now = 4e9  # far from what is old
    recorder.add(Impression("r1", now, "u", "1", "champion", "explored", 0, '["a","b"]', likes, propensities=chances))
    recorder.add(Impression("r2", now, "u", "1", "champion", "personal", 0, '["a","b"]', likes))
    recorder.close()
    rows = dict(record_rows(path, "request, propensities"))
    assert np.frombuffer(rows["r1"], "<f4").tolist() == [0.25, 0.125]
    assert rows["r2"] is None
