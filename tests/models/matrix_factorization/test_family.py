import numpy as np
import pytest

from recsys.models import matrix_factorization
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge

PENALTY = 0.4


@pytest.fixture
def recommender():
    """Two items, their factors (2, 0) and (0, 1), rated at 3 on average; one user."""
    ids = np.array(["u"], object), np.array(["a", "b"], object)
    likes = LikeCalibration(1.0, 0.0)
    knowledge = Knowledge(
        *ids, np.zeros((0, 2), np.int32), (1.0, 5.0), 4.0, Biases(3.0, np.zeros(1), np.zeros(2)), likes
    )
    arrays = {
        "user_bias": np.zeros(1, np.float32),
        "item_bias": np.array([0.5, 0], np.float32),
        "user_factors": np.zeros((1, 2), np.float32),
        "item_factors": np.array([[2, 0], [0, 1]], np.float32),
    }
    config = matrix_factorization.Config(embedding_size=2, regularization=PENALTY)
    return matrix_factorization.FactorRecommender(knowledge, config, arrays, 3.0, 1, likes)


def bring(recommender, **ratings):
    users = np.full(len(ratings), "new", object)
    folded = recommender.fold_in(users, np.array(list(ratings), object), np.array(list(ratings.values()), float))
    arrays = folded.recommender.arrays
    return arrays["user_factors"][1], arrays["user_bias"][1]


def test_a_rating_folded_in_moves_factors_and_bias_against_the_same_penalty(recommender):
    # One rating of 5 is 1.5 above mean and item bias; x minimises (q·p + b - 1.5)² + 0.4 (|p|² + b²) with q = (2, 0).
    factors, bias = bring(recommender, a=5)
    assert bias == pytest.approx(1.5 / (2**2 + 1 + PENALTY))
    assert factors == pytest.approx([2 * bias, 0])


def test_the_penalty_grows_with_the_ratings_as_in_the_training(recommender):
    # Ratings 1.5 and 1 above: the normal equations of both, with the penalty twice.
    factors, bias = bring(recommender, a=5, b=4)
    table = np.array([[2, 0, 1], [0, 1, 1]])
    solved = np.linalg.solve(table.T @ table + 2 * PENALTY * np.eye(3), table.T @ [1.5, 1])
    assert [*factors, bias] == pytest.approx(solved.tolist())


def test_without_a_penalty_one_rating_moves_bias_and_factors_by_the_shortest_solution(recommender):
    # Many x solve (2, 0, 1)·x = 1.5; as the penalty goes to 0, its minimum goes to the shortest of them.
    recommender.config = recommender.config.model_copy(update={"regularization": 0.0})
    factors, bias = bring(recommender, a=5)
    assert [*factors, bias] == pytest.approx([2 * 1.5 / 5, 0, 1.5 / 5], rel=1e-4)
