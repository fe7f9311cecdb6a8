import numpy as np
import pytest

from recsys.training.lists import EXPONENTS, choose_exponent


def users(means, spread=0.1, n=400):
    """nDCG of users by each exponent, of these means; the differences of a user vary by `spread`."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(len(EXPONENTS), n))
    return np.array(means)[:, None] + spread * (noise - noise.mean(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("means", "chosen"),
    [
        ([0.20, 0.21, 0.22, 0.222, 0.221], 0.5),  # a little better is not enough
        ([0.20, 0.21, 0.22, 0.25, 0.24], 0.75),
        ([0.20, 0.25, 0.22, 0.21, 0.20], 0.25),
        ([0.20, 0.20, 0.20, 0.20, 0.20], 0.0),  # likes tell nothing: no pool is needed
        ([0.25, 0.24, 0.20, 0.20, 0.20], 0.0),
        ([0.20, 0.18, 0.16, 0.20, 0.23], 1.0),
    ],
)
def test_another_exponent_than_a_half_has_to_be_clearly_better(means, chosen):
    assert choose_exponent(users(means)) == chosen


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1])
def test_few_users_choose_too(n):
    assert choose_exponent(np.zeros((len(EXPONENTS), n))) == 0.0
