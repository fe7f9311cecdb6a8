import numpy as np
import pytest

from bench.measure import interval_of_median


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        (1, (1, 1)),
        (5, (1, 5)),
        (6, (1, 6)),
        (9, (2, 8)),
        (20, (6, 15)),
        (80, (31, 50)),
    ],  # as tables of the sign test say
)
def test_the_interval_of_a_median_ends_at_values(size, ends):
    values = np.random.default_rng(size).permutation(size) + 1
    assert interval_of_median(values.tolist()) == ends


def test_the_interval_holds_the_median_as_often_as_it_says():
    drawn = np.random.default_rng(0).exponential(size=(2000, 30))
    held = [low <= np.log(2) <= high for low, high in map(interval_of_median, drawn.tolist())]
    assert 0.945 < np.mean(held) < 0.975  # 0.957 of 30 values
