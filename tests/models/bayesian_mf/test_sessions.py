import numpy as np
import pytest

from recsys.models.bayesian_mf import sessions as sessions_module
from recsys.models.bayesian_mf.sessions import Sessions, cut_sessions, drop_single_sessions


def codes(*values):
    return np.array(values, np.int32)


def test_a_user_s_ratings_are_cut_in_the_order_of_time(monkeypatch):
    monkeypatch.setattr(sessions_module, "LENGTH", 2)
    found, session_of = cut_sessions(codes(1, 0, 1, 0, 1, 0, 1), np.array([40.0, 1, 10, 3, 30, 2, 20]))
    assert found.users.tolist() == [0, 0, 1, 1]
    assert found.starts.tolist() == [1, 3, 10, 30]
    assert found.ends.tolist() == [2, 3, 20, 40]
    assert session_of.tolist() == [3, 0, 2, 1, 3, 0, 2]


def test_ratings_of_one_moment_are_not_parted(monkeypatch):
    monkeypatch.setattr(sessions_module, "LENGTH", 2)
    found, session_of = cut_sessions(codes(0, 0, 0, 0, 0, 0), np.array([5.0, 5, 5, 5, 6, 7]))
    assert session_of.tolist()[:4] == [0, 0, 0, 0]
    assert found.starts[0] == found.ends[0] == 5
    assert len(set(session_of.tolist()[4:])) == len(found) - 1


def test_every_rating_s_session_is_found_again():
    random = np.random.default_rng(0)
    users, times = random.integers(0, 20, 2000).astype(np.int32), random.integers(0, 500, 2000) / 4
    found, session_of = cut_sessions(users, times)
    assert found.find(users, times).tolist() == session_of.tolist()
    assert np.bincount(session_of).mean() == pytest.approx(sessions_module.LENGTH, rel=0.2)


TWO = Sessions(codes(3, 3, 5), np.array([10.0, 100, 50]), np.array([20.0, 140, 60]))


@pytest.mark.parametrize(
    ("user", "moment", "session"),
    [
        (3, 10, 0),
        (3, 15, 0),
        (3, 55, 0),  # 35 after the first, 45 before the second
        (3, 65, 1),
        (3, 180, 1),  # as long after the session as the session was long
        (3, 181, -1),
        (3, 0, 0),
        (3, -1, -1),
        (3, np.nan, -1),
        (5, 55, 2),
        (5, 200, -1),
        (4, 55, -1),
        (9, 55, -1),
    ],
)
def test_a_moment_belongs_to_the_nearest_session_that_may_still_go_on(user, moment, session):
    assert TWO.find(codes(user), np.array([moment], float)).tolist() == [session]


def test_without_sessions_nothing_is_found():
    nothing = Sessions(codes(), np.zeros(0), np.zeros(0))
    assert nothing.find(codes(1, 2), np.array([1.0, 2])).tolist() == [-1, -1]


def test_a_user_s_only_session_is_dropped(monkeypatch):
    monkeypatch.setattr(sessions_module, "LENGTH", 10)
    users = np.repeat(np.arange(3, dtype=np.int32), [4, 30, 12])
    sessions, of_rating = drop_single_sessions(*cut_sessions(users, np.arange(46)))
    assert sessions.users.tolist() == [1, 1, 1]
    assert of_rating.tolist() == [3] * 4 + [0] * 10 + [1] * 10 + [2] * 10 + [3] * 12
