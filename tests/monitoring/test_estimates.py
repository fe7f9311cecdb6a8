import numpy as np
import pytest

from recsys import metrics
from recsys.monitoring.estimates import (
    auc_over_users,
    compare,
    exactly,
    mean_over_users,
    rmse_over_users,
)


def test_a_mean_of_users_with_a_row_each_has_the_usual_standard_error():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    found = mean_over_users(values, np.arange(4))
    assert (found.value, found.rows, found.users) == (3.0, 4, 4)
    assert found.error == pytest.approx(values.std(ddof=1) / 2)


def test_rows_of_one_user_count_as_one():
    alone = mean_over_users(np.array([1.0, 5.0]), np.array([0, 1]))
    repeated = mean_over_users(np.repeat([1.0, 5.0], 50), np.repeat([0, 1], 50))
    assert repeated.error == pytest.approx(alone.error)


def test_the_auc_is_that_of_the_metrics():
    random = np.random.default_rng(0)
    score, liked = np.round(random.random(500), 2), random.random(500) < 0.4
    assert auc_over_users(score, liked, np.arange(500)).value == pytest.approx(metrics.auc(liked, score))
    assert np.isnan(auc_over_users(score, np.zeros(500, bool), np.arange(500)).value)


def test_nothing_and_one_user_have_no_interval():
    assert np.isnan(mean_over_users(np.empty(0), np.empty(0, int)).value)
    assert mean_over_users(np.ones(5), np.zeros(5, int)).interval() == (-np.inf, np.inf)
    assert compare(mean_over_users(np.ones(5), np.zeros(5, int)), exactly(0)).p_value == 1


def test_equal_certainties_do_not_differ_and_others_do():
    assert compare(exactly(1.0), exactly(1.0)).p_value == 1
    assert compare(exactly(1.0), exactly(0.5)).p_value == 0


@pytest.mark.simulation
@pytest.mark.parametrize("measure", ["mean", "rmse", "auc"])
def test_intervals_over_users_hold_their_level(measure):
    """Rows of a user share the user's taste; intervals that took them for independent would hold far less often."""
    random = np.random.default_rng(2)
    users = np.repeat(np.arange(120), random.integers(5, 40, 120))
    truth = {"mean": 0.0, "rmse": np.sqrt(1.25), "auc": None}
    inside, values, bounds = 0, [], []
    for _ in range(400):
        taste = random.normal(0, 0.5, 120)[users]
        error = taste + random.normal(size=len(users))
        score = random.normal(size=len(users)) + taste
        if measure == "mean":
            found = mean_over_users(error, users)
        elif measure == "rmse":
            found = rmse_over_users(error, users)
        else:
            found = auc_over_users(score, score + 2 * taste + random.normal(size=len(users)) > 0, users)
        values.append(found.value)
        bounds.append(found.interval())
    centre = np.mean(values) if truth[measure] is None else truth[measure]
    inside = np.mean([low <= centre <= high for low, high in bounds])
    assert 0.91 < inside < 0.985
