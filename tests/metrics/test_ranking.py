"""Measures of lists: on lists worked by hand, and against a slow form of each that is written from its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score

from recsys import metrics

ITEMS = 7


@st.composite
def listed(draw):
    """A user's list, of which the end may be empty, and what is relevant to them, some of it unknown."""
    order = draw(st.permutations(range(ITEMS)))
    k = draw(st.integers(1, ITEMS))
    length = draw(st.integers(0, k))
    relevant = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=ITEMS))
    unknown = draw(st.integers(0 if relevant else 1, 2))
    return [*order[:length], *[-1] * (k - length)], relevant, unknown


@settings(deadline=None)
@given(listed())
def test_every_measure_is_what_its_definition_says(drawn):
    items, relevant, unknown = drawn
    k, count = len(items), len(relevant) + unknown
    found = metrics.hits(
        np.array([items]), np.zeros(count, int), np.array([*relevant, *[-1] * unknown], int), n_items=ITEMS
    )
    counts = np.array([count])
    ranks = [rank for rank, item in enumerate(items, 1) if item in relevant]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, count) + 1))
    precisions = [sum(other <= rank for other in ranks) / rank for rank in ranks]
    assert found[0].tolist() == [item in relevant for item in items]
    assert metrics.ndcg(found, counts)[0] == pytest.approx(sum(1 / math.log2(r + 1) for r in ranks) / ideal)
    assert metrics.recall(found, counts)[0] == pytest.approx(len(ranks) / count)
    assert metrics.precision(found)[0] == pytest.approx(len(ranks) / k)
    assert metrics.average_precision(found, counts)[0] == pytest.approx(sum(precisions) / min(k, count))
    assert metrics.reciprocal_rank(found)[0] == pytest.approx(1 / ranks[0] if ranks else 0)


@settings(deadline=None)
@given(st.permutations(range(ITEMS)), st.sets(st.integers(0, ITEMS - 1), min_size=1), st.integers(1, ITEMS))
def test_ndcg_is_what_scikit_learn_says_of_a_whole_ranking(order, relevant, k):
    truth = np.array([[item in relevant for item in range(ITEMS)]], float)
    scores = np.array([[-order.index(item) for item in range(ITEMS)]], float)
    found = metrics.hits(np.array([order[:k]]), np.zeros(len(relevant), int), np.array(sorted(relevant)), n_items=ITEMS)
    expected = ndcg_score(truth, scores, k=k)
    assert metrics.ndcg(found, np.array([len(relevant)]))[0] == pytest.approx(expected)


def test_an_unknown_relevant_item_is_no_hit_in_the_list_before():
    # Code -1 of the second user must not be taken for the last item of the first.
    found = metrics.hits(np.array([[2, 1], [0, -1]]), np.array([0, 1]), np.array([0, -1]), n_items=3)
    assert not found.any()


def test_novelty_is_the_bits_of_who_rated_it():
    lists, counts = np.array([[0, 1], [2, -1], [-1, -1]]), np.array([8, 2, 0])
    # 8 of 8 rated the first: no bits; 2 of 8: two; nobody counts as one of 8: three.
    assert metrics.novelty(lists, counts, 8)[:2].tolist() == [1, 3]
    assert np.isnan(metrics.novelty(lists, counts, 8)[2])


def test_gini_is_0_where_all_are_alike_and_grows_to_1():
    assert metrics.gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert metrics.gini(np.array([0, 0, 0]), 4) == pytest.approx(3 / 4)
    assert metrics.gini(np.array([0] * 9), 1000) == pytest.approx(0.999)
    times = np.array([5, 1, 1, 0, 3])
    pairs = sum(abs(one - other) for one in times for other in times) / (2 * len(times) ** 2 * times.mean())
    assert metrics.gini(np.repeat(np.arange(5), times), 5) == pytest.approx(pairs)


def test_diversity_is_one_less_the_mean_cosine_of_the_pairs():
    rated = csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1]], float))
    found = metrics.intra_list_diversity(np.array([[0, 1, 2], [2, 3, -1], [1, -1, -1]]), rated)
    columns = rated.toarray()
    columns /= np.linalg.norm(columns, axis=0)
    cosine = columns.T @ columns
    assert found[0] == pytest.approx(1 - (cosine[0, 1] + cosine[0, 2] + cosine[1, 2]) / 3)
    assert found[1] == pytest.approx(1 - cosine[2, 3])
    assert np.isnan(found[2])
