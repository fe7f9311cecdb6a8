import numpy as np
import pytest

from recsys.models.base.ranking import best_items, diversify


def test_best_first_and_equal_scores_in_the_order_of_the_codes():
    scores = np.array([1.0, 3, 2, 3, 2, 2, 0])
    assert best_items(scores, 4).tolist() == [1, 3, 2, 4]
    assert best_items(scores, 99).tolist() == [1, 3, 2, 4, 5, 0, 6]


def test_only_what_is_allowed_and_as_many_as_there_are():
    scores = np.array([1.0, 3, 2, 3])
    allowed = np.array([True, False, True, True])
    assert best_items(scores, 2, allowed).tolist() == [3, 2]
    assert best_items(scores, 9, allowed).tolist() == [3, 2, 0]
    assert best_items(scores, 2, np.zeros(4, bool)).tolist() == []


@pytest.mark.parametrize("levels", [2, 5, 10**9])
@pytest.mark.parametrize("n", range(1, 30))
def test_it_is_a_stable_sort_cut_short(n, levels):
    random = np.random.default_rng(n)
    for items in (25, 100 * n + 3, 1007):
        scores = random.integers(0, levels, items).astype(float)
        assert best_items(scores, n).tolist() == np.argsort(-scores, kind="stable")[:n].tolist()
        allowed = random.random(items) < 0.1  # so few that most columns of its table have none
        order = np.argsort(-np.where(allowed, scores, -1), kind="stable")
        assert best_items(scores, n, allowed).tolist() == order[: min(n, allowed.sum())].tolist()


def test_diversity_passes_over_what_is_like_the_first():
    scores = np.array([1.0, 0.9, 0.5])
    close = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    assert diversify(scores, close, 3, 0).tolist() == [0, 1, 2]
    assert diversify(scores, close, 2, 0.6).tolist() == [0, 2]
    assert diversify(scores, close, 9, 1).tolist() == [0, 2, 1]
    assert diversify(np.array([]), np.zeros((0, 0)), 3, 0.5).tolist() == []
