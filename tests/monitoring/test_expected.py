import numpy as np
import pytest

from recsys import metrics
from recsys.monitoring.expected import Adjustment, expected_auc, expected_rmse, fit_adjustment, log_odds


def test_three_rows_are_worked_by_hand():
    # Pairs (i above j) weigh p_i (1 - p_j): 0.8 * 0.5 + 0.8 * 0.8 + 0.5 * 0.8 = 1.44 are ranked right,
    # 0.5 * 0.2 + 0.2 * 0.2 + 0.2 * 0.5 = 0.24 wrong.
    assert expected_auc(np.array([0.2, 0.8, 0.5])) == pytest.approx(1.44 / 1.68)


def test_equal_probabilities_say_nothing():
    assert expected_auc(np.full(10, 0.3)) == pytest.approx(0.5)


def test_of_one_row_or_none_there_is_no_auc():
    assert np.isnan(expected_auc(np.array([0.4])))
    assert np.isnan(expected_auc(np.array([])))
    assert np.isnan(expected_rmse(np.array([])))


@pytest.mark.simulation
def test_the_closed_forms_are_what_samples_come_to():
    random = np.random.default_rng(0)
    probability = np.round(random.beta(2, 1.5, 3_000), 2)  # with ties
    spread = random.uniform(0.5, 1.5, 3_000)
    aucs, rmses = [], []
    for _ in range(300):
        liked = random.random(3_000) < probability
        aucs.append(metrics.auc_by_ranks(liked, probability))
        rmses.append(np.sqrt(np.mean(np.square(random.normal(0, spread)))))
    for sampled, expected in ((aucs, expected_auc(probability)), (rmses, expected_rmse(spread))):
        error = np.std(sampled) / np.sqrt(len(sampled))
        assert abs(np.mean(sampled) - expected) < 4 * error + 1e-4
        assert error < 1e-3


@pytest.mark.simulation
def test_what_a_version_exaggerates_is_learnt_on_the_reference():
    random = np.random.default_rng(1)
    truth = random.uniform(0.05, 0.95, 40_000)
    said = 1 / (1 + np.exp(-2 * log_odds(truth)))  # twice as sure as it should be
    rating = 3 + 2 * truth
    ratings = rating + random.normal(0, 1.0, len(truth))
    liked = random.random(len(truth)) < truth
    halves = np.arange(len(truth)) < 20_000
    adjustment = fit_adjustment(rating[halves], np.full(20_000, 0.5), said[halves], ratings[halves], liked[halves])
    rest = ~halves
    adjusted = adjustment.probability(said[rest])
    assert np.abs(adjusted - truth[rest]).max() < 0.03
    assert abs(expected_auc(said[rest]) - metrics.auc(liked[rest], said[rest])) > 0.05  # before
    assert abs(expected_auc(adjusted) - metrics.auc(liked[rest], said[rest])) < 0.015
    spread = adjustment.spread(rating[rest], np.full(rest.sum(), 0.5))
    assert expected_rmse(spread) == pytest.approx(metrics.rmse(ratings[rest], rating[rest]), abs=0.02)
    unsaid = fit_adjustment(rating[halves], None, said[halves], ratings[halves], liked[halves])
    assert expected_rmse(unsaid.spread(rating[rest], None)) == pytest.approx(1.0, abs=0.03)


def test_without_a_reference_nothing_is_changed():
    adjustment = Adjustment()
    assert adjustment.probability(np.array([0.3])).tolist() == [0.3]
    assert adjustment.spread(np.array([3.0]), None) is None
    assert adjustment.spread(np.array([3.0]), np.array([0.7])).tolist() == [0.7]
