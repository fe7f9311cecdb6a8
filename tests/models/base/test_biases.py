import math
from itertools import pairwise

import numpy as np
import pytest

from recsys.models.base import biases
from recsys.models.base.biases import Biases, learn_biases, learn_biases_from
from recsys.models.base.calibration import calibrate

BIASES = Biases(3.0, np.array([0.5, -0.5]), np.array([1.0, -1.0]))


@pytest.mark.parametrize(
    ("user", "item", "expected"),
    [(0, 0, 4.5), (1, 1, 1.5), (-1, 0, 4.0), (0, -1, 3.5), (-1, -1, 3.0)],
)
def test_an_unknown_bias_counts_as_0(user, item, expected):
    assert BIASES.rating(np.array([user]), np.array([item])).tolist() == [expected]


def test_without_damping_additive_ratings_are_recovered():
    user, item = np.array([-1.0, 0, 1]), np.array([-0.5, 0.5])
    users, items = np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3)
    learnt = learn_biases(users, items, 3 + user[users] + item[items], 3, 2, damping=0)
    assert learnt.mean == pytest.approx(3)
    assert learnt.user == pytest.approx(user)
    assert learnt.item == pytest.approx(item)


def test_damping_adds_ratings_at_the_mean():
    # One item, so that its bias is 0: each user's two ratings stand 2 from the mean, and 2 * 2 / (2 + 2) = 1.
    users, items = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    learnt = learn_biases(users, items, np.array([5.0, 5, 1, 1]), 2, 2, damping=2)
    assert learnt.mean == 3
    assert learnt.user == pytest.approx([1, -1])
    assert learnt.item == pytest.approx([0, 0])


def test_the_biases_minimise_the_penalised_squared_error():
    rng = np.random.default_rng(0)
    pairs = np.flatnonzero(rng.uniform(size=200) < 0.4)
    users, items, ratings = pairs // 10, pairs % 10, rng.uniform(1, 5, len(pairs))
    learnt = learn_biases(users, items, ratings, 20, 10, damping=5)
    design = np.zeros((len(pairs), 30))
    design[np.arange(len(pairs)), users] = 1
    design[np.arange(len(pairs)), 20 + items] = 1
    exact = np.linalg.solve(design.T @ design + 5 * np.eye(30), design.T @ (ratings - ratings.mean()))
    assert np.concatenate([learnt.user, learnt.item]) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("least", [1, 60, 1000])
def test_rows_in_blocks_give_the_same_biases_however_they_are_put_together(monkeypatch, least):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 20, 500).astype(np.int32), rng.integers(0, 10, 500).astype(np.int32), rng.uniform(1, 5, 500)
    whole = learn_biases(*rows, 20, 10)
    monkeypatch.setattr(biases, "_ROWS", least)
    edges = [0, 7, 7, 150, 499, 500]
    blocks = [tuple(column[first:last] for column in rows) for first, last in pairwise(edges)]
    for learnt in (learn_biases(*rows, 20, 10), learn_biases_from(lambda: iter(blocks), 20, 10)):
        assert learnt.mean == pytest.approx(whole.mean, rel=1e-12)
        np.testing.assert_allclose(learnt.user, whole.user, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(learnt.item, whole.item, rtol=1e-9, atol=1e-12)


def test_a_calibrated_probability_grows_with_the_rating_and_meets_the_share_of_likes():
    predicted = np.linspace(1, 5, 400)
    liked = np.random.default_rng(0).uniform(size=400) < 1 / (1 + np.exp(-2 * (predicted - 3)))
    probability = calibrate(predicted, liked).probability(predicted)
    assert (np.diff(probability) > 0).all()
    assert probability.mean() == pytest.approx(liked.mean(), abs=0.01)
    assert np.abs(probability - 1 / (1 + np.exp(-2 * (predicted - 3)))).max() < 0.1


@pytest.mark.parametrize(
    ("liked", "share"),
    [
        pytest.param([True, True, True], 4 / 5, id="only likes"),
        pytest.param([False, False, False], 1 / 5, id="no like"),
        pytest.param([True, False, False], 2 / 5, id="likes at low predictions"),
        pytest.param([], 1 / 2, id="no row"),
    ],
)
def test_the_probability_is_the_smoothed_share_where_nothing_can_be_fitted(liked, share):
    predicted = np.arange(len(liked), dtype=np.float64)
    found = calibrate(predicted, np.array(liked, bool)).probability(np.array([-100.0, 3, 100]))
    assert found == pytest.approx([share] * 3)


def test_equal_predictions_give_the_share_of_likes():
    found = calibrate(np.full(4, 3.0), np.array([True, False, False, True])).probability(np.array([3.0]))
    assert found == pytest.approx([0.5])
    assert math.isfinite(found[0])
