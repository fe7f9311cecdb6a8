import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recsys import metrics

RATINGS, PREDICTED = np.array([5.0, 1, 3]), np.array([4.0, 1, 5])
LIKED = np.array([True, True, False, False])


def test_rmse_is_the_root_of_the_mean_squared_error():
    assert metrics.rmse(RATINGS, PREDICTED) == pytest.approx(math.sqrt((1 + 0 + 4) / 3))


def test_mae_is_the_mean_absolute_error():
    assert metrics.mae(RATINGS, PREDICTED) == pytest.approx((1 + 0 + 2) / 3)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], 1.0),
        ([0.1, 0.2, 0.8, 0.9], 0.0),
        ([0.9, 0.2, 0.5, 0.1], 3 / 4),  # of four pairs only 0.2 < 0.5 is the wrong way round
        ([0.9, 0.5, 0.5, 0.1], 3.5 / 4),  # the tied pair counts half
        ([0.5, 0.5, 0.5, 0.5], 1 / 2),
    ],
)
def test_auc_is_the_share_of_pairs_in_the_right_order(score, expected):
    assert metrics.auc(LIKED, np.array(score)) == pytest.approx(expected)
    assert metrics.auc_by_ranks(LIKED, np.array(score, np.float32)) == expected


@pytest.mark.parametrize("measure", [metrics.auc, metrics.auc_by_ranks])
@pytest.mark.parametrize("liked", [[True, True], [False, False], [True]])
def test_auc_of_one_class_does_not_exist(liked, measure):
    assert math.isnan(measure(np.array(liked), np.linspace(0, 1, len(liked))))


def test_accuracy_calls_a_like_from_one_half_on():
    assert metrics.accuracy(LIKED, np.array([0.5, 0.49, 0.5, 0.49])) == 0.5
    assert metrics.accuracy(LIKED, np.array([0.5, 0.5, 0.49, 0.0])) == 1


def test_calibration_error_is_the_mean_distance_of_probabilities_from_shares_of_likes():
    # Sorted by probability, two bins: .1 and .3 of no likes, then .6 of none and .8 of a like.
    liked, probability = np.array([True, False, False, False]), np.array([0.8, 0.1, 0.6, 0.3])
    assert metrics.calibration_error(liked, probability, bins=2) == pytest.approx((0.4 + abs(1.4 - 1)) / 4)
    assert metrics.calibration_error(liked, probability, bins=1) == pytest.approx(0.8 / 4)
    assert metrics.calibration_error(liked, liked.astype(float)) == 0


def test_rows_of_one_probability_share_a_bin_whatever_their_order():
    """A constant is as far off as its distance from the share of likes, and not from each row."""
    for seed in range(5):
        liked = np.random.default_rng(seed).permutation(np.repeat([True, False], [60, 40]))
        assert metrics.calibration_error(liked, np.full(100, 0.5)) == pytest.approx(0.1)


def test_interval_coverage_is_the_share_within_two_standard_deviations():
    ratings, predicted = np.array([5.0, 1, 3, 2]), np.array([4.0, 1, 1, 4])  # errors of 1, 0, 2 and 2
    assert metrics.interval_coverage(ratings, predicted, np.array([0.52, 0.0, 1.0, 0.9])) == 2 / 4
    assert metrics.interval_coverage(ratings, predicted, np.array([0.51, 0.0, 1.03, 1.03])) == 3 / 4


def test_f1_score_is_the_harmonic_mean_of_precision_and_recall():
    # Called likes: rows 0, 2, 3, so precision is 1/3, recall 1/2.
    assert metrics.f1_score(LIKED, np.array([0.5, 0.4, 0.6, 0.7])) == pytest.approx(2 / (3 + 2))


@pytest.mark.parametrize("liked", [[True, True], [False, False]])
def test_f1_score_is_0_where_no_like_is_found(liked):
    assert metrics.f1_score(np.array(liked), np.array([0.1, 0.2])) == 0


def test_log_loss_is_the_mean_negative_log_likelihood():
    expected = -(math.log(0.9) + math.log(0.5) + math.log(1 - 0.2) + math.log(1 - 0.6)) / 4
    assert metrics.log_loss(LIKED, np.array([0.9, 0.5, 0.2, 0.6])) == pytest.approx(expected)


def test_log_loss_of_a_certain_error_is_finite_and_of_certainty_is_nearly_0():
    assert metrics.log_loss(LIKED, np.array([0.0, 0, 1, 1])) == pytest.approx(-math.log(1e-6))
    assert metrics.log_loss(LIKED, np.array([1.0, 1, 0, 0])) == pytest.approx(1e-6, rel=1e-3)


def test_log_loss_of_one_class_exists():
    assert metrics.log_loss(np.array([True, True]), np.array([0.5, 0.25])) == pytest.approx(math.log(8) / 2)


def test_user_aucs_leaves_out_users_with_one_class():
    users = np.array([7, 2, 2, 7, 4, 4, 7])
    liked = np.array([True, True, True, False, True, False, False])
    score = np.array([0.5, 0.1, 0.2, 0.5, 0.1, 0.9, 0.1])
    found, aucs = metrics.user_aucs(users, liked, score)
    assert found.tolist() == [4, 7]
    assert aucs.tolist() == [0, 0.75]  # user 7: one pair tied, one in order


def test_user_aucs_of_nobody_is_empty():
    users, aucs = metrics.user_aucs(np.array([0, 1]), np.array([True, False]), np.array([0.1, 0.2]))
    assert len(users) == len(aucs) == 0


# Scores from a small set, so that ties are frequent.
ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 1.0])), min_size=1)


@settings(deadline=None)
@given(ROWS)
def test_user_aucs_is_what_scikit_learn_says_of_each_user(rows):
    users, liked, score = (np.array(column) for column in zip(*rows, strict=True))
    found, aucs = metrics.user_aucs(users, liked, score)
    expected = {
        user: roc_auc_score(liked[users == user], score[users == user])
        for user in np.unique(users)
        if len(set(liked[users == user])) == 2
    }
    assert dict(zip(found.tolist(), aucs.tolist(), strict=True)) == pytest.approx(expected)


DISCOUNTS = [1, 1 / math.log2(3), 1 / 2]


@pytest.mark.parametrize(
    ("relevant", "count", "expected"),
    [
        ([True, False, False], 1, 1.0),
        ([False, False, True], 1, DISCOUNTS[2]),
        ([True, False, True], 2, (DISCOUNTS[0] + DISCOUNTS[2]) / (DISCOUNTS[0] + DISCOUNTS[1])),
        ([True, True, True], 9, 1.0),  # no list of three can be better
        ([False, False, False], 4, 0.0),
    ],
)
def test_ndcg_discounts_by_rank_against_the_best_list(relevant, count, expected):
    assert metrics.ndcg(np.array([relevant]), np.array([count])) == pytest.approx([expected])


def test_ndcg_and_recall_take_many_users_at_once():
    relevant, counts = np.array([[True, False], [False, True], [True, True]]), np.array([1, 4, 2])
    assert metrics.recall(relevant, counts).tolist() == [1, 0.25, 1]
    assert metrics.ndcg(relevant, counts) == pytest.approx([1, DISCOUNTS[1] / (1 + DISCOUNTS[1]), 1])


def test_coverage_counts_an_item_once():
    assert metrics.coverage(np.array([[0, 1], [1, 3]]), 6) == 0.5
    assert metrics.coverage(np.array([]), 6) == 0
