"""Single conditional draws of a chain, against the distributions that they are drawn from, in closed form."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.runtime.threads import workers


def small_chain(n_users: int, ratings_each: int) -> Chain:
    """A chain past its start; every user has rated the same `ratings_each` items."""
    users = np.repeat(np.arange(n_users, dtype=np.int32), ratings_each)
    items = np.tile(np.arange(ratings_each, dtype=np.int32), n_users)
    ratings = np.random.default_rng(0).normal(size=len(users))
    rows = Interactions(users, items, ratings)
    chain = Chain(rows, (n_users, ratings_each), Config(embedding_size=2, device="cpu"), 0)
    chain.sweeps = chain.warm_up.start
    return chain


def assert_gamma(drawn: np.ndarray, shape: float, rate: float) -> None:
    """Mean and variance within five standard errors, each of which has to be much below 9%.

    The variance of a sample variance of n gamma variates is about variance^2 (2 + 6 / shape) / n.
    """
    n, variance = len(drawn), shape / rate**2
    error = np.sqrt(variance / n), variance * np.sqrt((2 + 6 / shape) / n)
    assert 5 * error[0] < 0.03 * shape / rate
    assert drawn.mean() == pytest.approx(shape / rate, abs=5 * error[0])
    assert drawn.var() == pytest.approx(variance, abs=5 * error[1])


def test_the_noise_is_drawn_from_its_gamma_distribution():
    """Of 12 ratings and a prior of Gamma(1, 1): Gamma(1 + 12 / 2, 1 + errors / 2)."""
    chain = small_chain(4, 3)
    errors = np.array([1.0, 4.0, 0.5, 2.5], np.float32)
    drawn = []
    for _ in range(8000):
        chain._draw_noise(errors)
        drawn.append(chain.noise)
    assert_gamma(np.array(drawn), 1 + 12 / 2, 1 + 8 / 2)


def test_the_precisions_of_users_are_drawn_from_their_gamma_distributions(monkeypatch):
    """Of a user with 6 ratings, given a = 2.5 and tau = 1.6: Gamma(2.5 + 6 / 2, 2.5 + 1.6 errors / 2)."""
    monkeypatch.setattr("recsys.models.bayesian_mf.gibbs.draw_spread", lambda *args: 2.5)
    chain = small_chain(40_000, 6)
    chain.noise = 1.6
    drawn = chain._draw_user_precision(np.full(40_000, 3.0, np.float32)).astype(float)
    assert_gamma(drawn, 2.5 + 6 / 2, 2.5 + 1.6 * 3.0 / 2)


def test_the_width_moves_along_with_the_stretch():
    """Factors times s: the prior's precision is divided by s^2 and its width multiplied by it; biases stay."""
    chain = small_chain(30, 20)
    entity = chain.items
    factors, mean, inverse, width = entity.factors.copy(), entity.mean + 1, entity.inverse.copy(), 0.7
    entity.mean, entity.width = mean.copy(), width
    chain._stretch(entity, np.array([40.0, 80.0]))
    by = float((entity.factors[:, 0] / factors[:, 0]).mean())
    assert abs(by - 1) > 0.2
    scales = np.array([by, by, 1.0])
    assert entity.factors == pytest.approx(factors * scales, rel=1e-5)
    assert entity.mean == pytest.approx(mean * scales, rel=1e-5)
    assert entity.inverse == pytest.approx(inverse / scales / scales[:, None], rel=1e-5)
    assert entity.width == pytest.approx(width * by**2, rel=1e-5)


def test_the_spread_of_biases_settles_in_a_few_sweeps_where_users_have_two_ratings():
    """Without the step that multiplies all biases, it is less than half of the truth after these sweeps."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(3000, dtype=np.int32), 2)
    items = (random.permutation(6000) % 100).astype(np.int32)
    ratings = (random.normal(size=3000) * 0.5)[users] + (random.normal(size=100) * 0.5)[items]
    rows = Interactions(users, items, ratings + random.normal(size=6000) * 0.8)
    chain = Chain(rows, (3000, 100), Config(device="cpu").model_copy(update={"embedding_size": 0}), 0)
    chain.weighted = False
    spreads = []
    with workers("cpu") as each:
        for _ in range(chain.warm_up.start + 14):
            chain.sweep(each)
            spreads.append(chain.scale / float(chain.users.inverse[-1, -1]) ** 0.5)
    assert np.mean(spreads[-10:]) == pytest.approx(0.5, rel=0.15)
