import numpy as np
import pytest
from scipy.sparse import csr_matrix, random

from recsys.models.base.item_to_item import (
    Regression,
    count_together,
    ease_weights,
    keep_largest,
    learn_item_to_item,
)


@pytest.fixture
def matrix() -> csr_matrix:
    return csr_matrix(random(80, 25, 0.3, random_state=np.random.default_rng(1)))


def test_each_column_is_the_ridge_regression_on_all_other_items(matrix):
    dense, weights = matrix.toarray(), ease_weights(count_together(matrix).gram, Regression("ratings", 3.0, 0.5))
    for item in (0, 7, 24):
        others = np.delete(np.arange(25), item)
        gram = dense[:, others].T @ dense[:, others]
        system = gram + np.diag(3.0 + 0.5 * np.diag(gram))
        expected = np.linalg.solve(system, dense[:, others].T @ dense[:, item])
        assert weights[others, item] == pytest.approx(expected)
        assert weights[item, item] == 0


def test_in_single_precision_a_large_catalogue_has_the_same_weights():
    dense = np.random.default_rng(2).random((900, 600)) < 0.05
    gram = dense.T.astype(np.float32) @ dense
    found = ease_weights(gram, Regression("likes", 20.0, 0.3))
    system = gram.astype(np.float64)
    system[np.diag_indices(600)] += 20.0 + 0.3 * np.diag(system)
    inverse = np.linalg.inv(system)
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # approx compares one number at a time


def test_a_system_close_to_singular_is_solved_in_double_precision():
    """All ratings are of the same items: single precision would find eigenvalues below 0."""
    gram = np.full((600, 600), 1e6)
    found = ease_weights(gram, Regression("likes", 0.01, 0.0))
    assert found[0, 1] == pytest.approx(1 / 599, rel=1e-3)
    assert np.ptp(found[~np.eye(600, dtype=bool)]) < 1e-4


def test_with_all_items_as_neighbours_both_forms_are_the_same(matrix):
    regression = Regression("likes", 2.0, 0.3)
    whole = learn_item_to_item(count_together(matrix), regression)
    by_neighbours = learn_item_to_item(count_together(matrix, dense_items=0), regression)
    items, values = np.array([3, 9]), np.array([1.0, 0.5])
    assert by_neighbours.score(items, values) == pytest.approx(whole.score(items, values), abs=1e-6)


def test_a_score_is_the_sum_of_the_rows_of_the_history(matrix):
    weights = ease_weights(count_together(matrix).gram, Regression("ratings", 3.0, 0.5))
    model = keep_largest(weights, 25)
    items, values = np.array([1, 4, 5]), np.array([1.0, 0.2, 0.6])
    assert model.score(items, values) == pytest.approx(values @ weights[items], abs=1e-6)
    assert model.contributions(items, values, 8) == pytest.approx(values * weights[items, 8], abs=1e-6)


def test_the_largest_weights_are_kept():
    model = keep_largest(np.array([[0, 3, -5, 1.0], [2, 0, 2, 2], [0, 0, 0, 0], [9, 8, 7, 0]]), 2)
    assert model.score(np.array([0]), np.ones(1)).tolist() == [0, 3, -5, 0]
    assert model.score(np.array([3]), np.ones(1)).tolist() == [9, 8, 0, 0]


def test_likes_and_ratings_count_as_said():
    given = np.array([1.0, 4, 5])
    assert Regression("ratings", 1, 0).values(given, (1, 5), 4).tolist() == pytest.approx([0.2, 0.8, 1])
    assert Regression("likes", 1, 0).values(given, (1, 5), 4).tolist() == [0, 1, 1]
    assert Regression("ratings", 1, 0).values(np.array([-10.0, 0, 10]), (-10, 10), 3) == pytest.approx([0.1, 0.55, 1])
    assert Regression("ratings", 1, 0).values(np.array([0.0]), (0, 0), 3) == pytest.approx([0.1])
