"""When a term stays in the model: by how far it helps on validation rows, and by what it costs."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.base.recommender import Predictions
from recsys.models.bayesian_mf.alternatives import best_of
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.mcmc import TRIAL_LAST, TRIAL_LOOKS, HeldOut, ModelTerm, decide
from recsys.testing.datasets import prepared
from recsys.training.trainer import train

COSTLY = ModelTerm(lambda chain: None, 2.0)
FREE = ModelTerm(lambda chain: None, 1.0, costs=False)


def test_a_term_that_costs_something_has_to_help_surely():
    assert decide(4.1, 8, COSTLY)  # twice as much as at the last look
    assert decide(3.9, 8, COSTLY) is None
    assert decide(-3.9, 8, COSTLY) is None
    assert decide(-4.1, 8, COSTLY) is False  # surely does harm
    assert decide(-0.1, 16, COSTLY) is False
    assert decide(2.1, 32, COSTLY)
    assert decide(1.9, 32, COSTLY) is False


def test_a_term_that_costs_nothing_is_refused_only_as_surely_as_it_is_taken():
    for sweep, bound in zip(TRIAL_LOOKS, (2.0, 2**0.5, 1.0), strict=True):
        assert decide(bound + 0.01, sweep, FREE)
        assert decide(-bound - 0.01, sweep, FREE) is False
        assert decide(bound - 0.01, sweep, FREE) is None
        assert decide(0.01 - bound, sweep, FREE) is None


def test_where_nothing_is_sure_the_better_one_is_taken():
    assert decide(0.1, TRIAL_LAST, FREE)
    assert decide(-0.1, TRIAL_LAST, FREE) is False
    assert decide(0.0, TRIAL_LAST, FREE) is False  # no rows to tell


class Says:
    """A recommender that says this of the validation rows."""

    def __init__(self, rating, like):
        self.said = Predictions(np.array(rating), np.array(like))

    def score(self, users, items):
        return self.said


def test_of_biases_that_expect_the_same_ratings_the_one_that_tells_likes_is_taken():
    codes = np.zeros(2, np.int32)
    rows = Interactions(codes, codes, np.array([1.0, 5.0]), None)
    held_out = HeldOut(rows, np.ones(2, bool), np.zeros(2), np.array([False, True]), (1.0, 5.0))
    unsure, sure = Says([2, 4], [0.4, 0.6]), Says([2, 4], [0.1, 0.9])
    assert best_of([unsure, sure], held_out) is sure
    assert best_of([sure, unsure], held_out) is sure
    # Squared errors 1 and 0.25; the logarithmic loss is -log 0.6 = 0.51 and -log 0.1 = 2.3.
    assert best_of([unsure, Says([1.5, 4.5], [0.9, 0.1])], held_out) is unsure
    told = Says([1, 5], [0.0, 1.0]), Says([2, 4], [0.0, 1.0])
    assert best_of(told[::-1], held_out) is told[0]


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(3))
def test_users_who_are_more_or_less_consistent_are_weighed_by_it(tmp_path, seed):
    """Of half of the users the noise is at least 1.4 times that of the median user, or 1.4 times less."""
    rng = np.random.default_rng(0)
    users, items = 200, 60
    p, q = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    b, c, noise = (0.5 * rng.normal(size=size) for size in (users, items, users))
    rated = rng.random((users, items)) < 0.3
    ratings = 0.4 * p @ q.T + b[:, None] + c + 0.8 * np.exp(noise)[:, None] * rng.normal(size=rated.shape)
    rows = [(f"u{user}", f"i{item}", float(ratings[user, item])) for user, item in np.argwhere(rated)]
    data = prepared(tmp_path, rows, like_threshold=0.5)
    config = Config(embedding_size=4, samples=2, implicit="false")
    assert train("bayesian_mf", data, config, seed=seed, refit=False, lists=False).final.user_noise
