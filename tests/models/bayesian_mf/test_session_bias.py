"""Biases of sessions and of groups of sessions in a row, drawn one level after the other."""

import numpy as np
import pytest

from recsys.models.bayesian_mf.numpy_backend import NumpyBackend
from recsys.models.bayesian_mf.session_bias import SessionBias, start_session_bias

KAPPA = (9.0, 4.0)  # of the sessions and of the groups


def start(sessions_of_users, ratings_each: int = 3) -> tuple[SessionBias, np.ndarray]:
    """Biases of 0 for users with so many sessions, and the session of each rating."""
    users = np.repeat(np.arange(len(sessions_of_users), dtype=np.int32), sessions_of_users)
    of_rating = np.repeat(np.arange(len(users), dtype=np.int32), ratings_each)
    return start_session_bias(users, of_rating, NumpyBackend()), of_rating


def left(biases: SessionBias, ratings: np.ndarray, of_rating: np.ndarray) -> np.ndarray:
    """Sums of what the biases leave of the ratings of each session."""
    rest = ratings - biases.value.astype(float)[of_rating]
    return np.bincount(of_rating, weights=rest).astype(np.float32)


def test_three_sessions_in_a_row_are_a_group_and_a_user_s_only_group_is_none():
    biases, _ = start([6, 4, 10, 18])
    sessions, groups, larger = biases.levels
    assert sessions.of_session.tolist() == list(range(38))
    assert np.bincount(sessions.users).tolist() == [6, 4, 10, 18]
    assert groups.users.tolist() == [0, 0, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert groups.of_session[:10].tolist() == [0, 0, 0, 1, 1, 1, 11, 11, 11, 11]
    assert groups.counts[:5].tolist() == [9, 9, 12, 9, 9]
    assert larger.users.tolist() == [3, 3]
    assert larger.of_session.tolist() == [2] * 20 + [0] * 9 + [1] * 9
    assert len(start([4, 3])[0].levels) == 1


def test_conditional_means_in_turn_lead_to_the_joint_mean():
    """With fixed precisions: the ridge regression of the ratings on the sessions and the groups."""
    biases, of_rating = start([6, 4])
    for level, kappa in zip(biases.levels, KAPPA, strict=True):
        level.precision = kappa
    ratings, weight = np.random.default_rng(0).normal(size=len(of_rating)), np.array([2.0, 0.5])
    for _ in range(60):
        biases.draw(left(biases, ratings, of_rating), weight.astype(np.float32), None, None)
    session = np.eye(10)[of_rating]
    group = np.column_stack((session[:, :3].sum(1), session[:, 3:6].sum(1)))
    design, by = np.hstack((session, group)), np.repeat(weight, [18, 12])
    precision = (design * by[:, None]).T @ design + np.diag(np.repeat(KAPPA, [10, 2]))
    mean = np.linalg.solve(precision, (design * by[:, None]).T @ ratings)
    expected = mean[:10] + np.r_[np.repeat(mean[10:], 3), np.zeros(4)]
    assert biases.value == pytest.approx(expected, abs=1e-4)
    assert biases.expected == pytest.approx(expected, abs=1e-4)
    biases.add_up()
    assert biases.value == pytest.approx(expected, abs=1e-4)


def test_how_much_sessions_and_groups_differ_is_learnt():
    """Of 500 users with 15 sessions, and 5 groups of these: standard deviations of 0.2 and 0.5, in a few draws."""
    random = np.random.default_rng(1)
    biases, of_rating = start([15] * 500, ratings_each=4)
    sessions, groups, _ = biases.levels
    truth = random.normal(size=len(sessions.users)) * 0.2
    truth += (random.normal(size=len(groups.users)) * 0.5)[groups.of_session]
    ratings = truth[of_rating] + random.normal(size=len(of_rating)) * 0.5
    generators = np.random.default_rng(0), NumpyBackend().generator(1)
    spreads, values = [], []
    for sweep in range(100):
        biases.draw(left(biases, ratings, of_rating), np.full(500, 4.0, np.float32), *generators)
        if sweep >= 10:
            spreads.append(biases.precisions() ** -0.5)
            values.append(biases.value.astype(float))
    assert np.mean(spreads, 0)[:2] == pytest.approx([0.2, 0.5], rel=0.15)
    assert np.mean(spreads, 0)[2] < 0.25
    error = np.std(np.mean(values, 0) - truth)
    assert error < 0.8 * 0.5 / 4**0.5  # that of the mean of a session's own ratings
    assert np.mean(np.std(values, 0)) == pytest.approx(error, rel=0.15)  # as sure as it is right


def test_the_expected_bias_lacks_the_session_s_own_deviation_only(monkeypatch):
    """Given the groups, the draw differs from it by the noise of the conditional distribution."""
    monkeypatch.setattr("recsys.models.bayesian_mf.session_bias.draw_bias_stretch", lambda *_: 1.0)
    biases, of_rating = start([16] * 2000, ratings_each=2)
    for level in biases.levels:
        level.precision = 2.0
    generators = np.random.default_rng(0), NumpyBackend().generator(1)
    biases.draw(left(biases, np.zeros(len(of_rating)), of_rating), np.full(2000, 3.0, np.float32), *generators)
    deviation = (biases.value - biases.expected).astype(float)
    assert float(deviation.var()) == pytest.approx(1 / (3.0 * 2 + 2.0), rel=0.03)
