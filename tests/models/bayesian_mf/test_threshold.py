import numpy as np
import pytest

from recsys.models.bayesian_mf.posterior import normal_cdf
from recsys.models.bayesian_mf.threshold import learn_threshold


@pytest.mark.parametrize("seed", range(5))
def test_no_other_candidate_is_more_probable(seed):
    random = np.random.default_rng(seed)
    rating, spread = random.normal(3.5, 1, 200), random.uniform(0.3, 1.5, 200)
    liked = rating + spread * random.normal(size=200) > 3 + seed / 4
    low, high = 3.0, 4.0

    def log_posterior(threshold):
        share = np.clip(normal_cdf((rating - threshold) / spread), 1e-6, 1 - 1e-6)
        prior = ((threshold - 3.5) / 0.25) ** 2 / 2
        return np.log(np.where(liked, share, 1 - share)).sum() - prior

    candidates = np.linspace(low, high, 101)[1:-1]
    expected = candidates[np.argmax([log_posterior(candidate) for candidate in candidates])]
    assert learn_threshold(rating, spread, liked, low, high) == expected
