import math

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.base.ridge import ridge_systems
from recsys.models.bayesian_mf.posterior import PosteriorDraws, normal_cdf, pack_factors
from recsys.models.bayesian_mf.sessions import Sessions

RANDOM = np.random.default_rng(0)


def draws_of(n_users=7, n_items=5, number=3, k=2, features=0, random=RANDOM) -> PosteriorDraws:
    factors = [
        (random.normal(size=(n_users, k + 1)).astype(np.float16), random.normal(size=(n_items, k + 1)))
        for _ in range(number)
    ]
    users, items = pack_factors(factors)
    return PosteriorDraws(
        users,
        items,
        noise=np.arange(1.0, n_users + 1),
        variance=np.linspace(0.1, 0.2, n_users),
        second=np.array([[2.0, 0.3, 0], [0.3, 1.5, 0], [0, 0, 1]])[-k - 1 :, -k - 1 :],
        precision=np.linspace(1, 2, number),
        mean=random.normal(size=(number, k + 1)),
        inverse=np.tile(np.eye(k + 1) * 3, (number, 1, 1)),
        link=random.normal(size=(number, features, k + 1)),
        projection=random.normal(size=(n_items, features)),
        sessions=Sessions(np.array([2, 4], np.int32), np.array([10.0, 20]), np.array([11.0, 21])),
        session_bias=np.array([0.5, -0.25, 0]),
        session_variance=np.array([0.01, 0.02, 0.09]),
    )


def draw_of(draws, draw, user, item):
    p, q = draws.users[user, draw].astype(float), draws.items[item, draw].astype(float)
    return p[:-2] @ q[:-2] + p[-2] + q[-1]  # users end in [bias, 1], items in [1, bias]


def test_the_prediction_is_the_mean_and_variance_over_the_draws():
    draws = draws_of()
    users, items = np.array([0, 6, 3]), np.array([4, 0, 3])
    mean, variance = draws.predict(users, items)
    ratings = np.array([[draw_of(draws, draw, u, i) for draw in range(3)] for u, i in zip(users, items, strict=True)])
    assert mean == pytest.approx(ratings.mean(1), abs=1e-5)
    within = 0.1 + users / 60
    assert variance == pytest.approx(ratings.var(1) + within + 0.09 + users + 1, abs=1e-5)


def test_at_a_moment_its_session_s_bias_is_added():
    draws = draws_of()
    users, items = np.array([2, 2, 4, 0]), np.zeros(4, int)
    mean, variance = draws.predict(users, items, np.array([10.5, np.nan, 20, 10.5]))
    plain, spread = draws.predict(users, items)
    assert mean - plain == pytest.approx([0.5, 0, -0.25, 0])
    assert variance - spread == pytest.approx([-0.08, 0, -0.07, 0])


def test_a_grid_is_predicted_as_its_pairs_are():
    draws = draws_of(40, 30, number=4, k=6)
    users, items = (codes.ravel() for codes in np.indices((40, 30)))
    some = np.flatnonzero(RANDOM.random(1200) < 0.8)
    assert draws._grid(users[:20], items[:20]) is None
    for whole, single in zip(
        draws._grid(users[some], items[some]), draws._pairs(users[some], items[some]), strict=True
    ):
        assert whole == pytest.approx(single, rel=1e-4, abs=1e-4)


def test_the_normal_distribution_function():
    x = np.linspace(-6, 6, 97)
    assert normal_cdf(x) == pytest.approx([(1 + math.erf(value / 2**0.5)) / 2 for value in x], abs=2e-7)


def rows_of(users, items, ratings):
    return Interactions(np.array(users, np.int32), np.array(items, np.int32), np.array(ratings, float))


def test_ridge_systems_are_those_of_a_loop():
    rows = rows_of([0, 0, 0, 2, 2, 3], [1, 0, 4, 2, 1, 1], np.zeros(6))
    table, target, pull = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=6), RANDOM.normal(size=(4, 3))
    solved = {}
    for users, precision, side in ridge_systems(rows, 4, table, target, np.eye(3) * 2, pull):
        solved |= {user: (a, b) for user, a, b in zip(users.tolist(), precision, side, strict=True)}
    assert sorted(solved) == [0, 2, 3]
    for user, (precision, side) in solved.items():
        own = rows.users == user
        gathered = table[rows.items[own]]
        assert precision == pytest.approx(2 * np.eye(3) + gathered.T @ gathered)
        assert side == pytest.approx(pull[user] + gathered.T @ target[own])


def test_folding_in_takes_the_closed_form_s_mean_and_variance():
    random = np.random.default_rng(5)
    draws = draws_of(5, 5, number=3, features=2, random=random)
    rows = rows_of([5, 5, 5, 1], [0, 2, 4, 3], [0, 0, 0, 0])
    ratings = np.array([1.0, -0.5, 2.0, 0.7])
    folded = draws.fold_in(rows, 6, ratings)
    others = [0, 2, 3, 4]
    assert (folded.users[others] == draws.users[others]).all()
    assert folded.variance[others].tolist() == draws.variance[others].tolist()
    variances = []
    for draw in range(3):
        q = draws.items[rows.items[:3], draw].astype(float)
        regressors = q[:, :-1]
        features = draws.projection[rows.items[:3]].sum(0) / np.sqrt(3)
        prior_mean = draws.mean[draw] + features @ draws.link[draw]
        precision = 3 * np.eye(3) + draws.precision[draw] * regressors.T @ regressors
        pull = 3 * prior_mean + draws.precision[draw] * regressors.T @ (ratings[:3] - q[:, -1])
        assert folded.users[5, draw, :-1] == pytest.approx(np.linalg.solve(precision, pull), abs=0.003)
        variances.append(np.trace(np.linalg.inv(precision) @ draws.second))
    assert folded.variance[5] == pytest.approx(np.mean(variances))
