import numpy as np
import pytest

from recsys.testing.datasets import rated

FIRST = 1_600_000_000


def timed(seed=3, moments=150):
    """Ratings at few moments: many users rate several items at one, and every user has a first."""
    rng = np.random.default_rng(seed)
    rows = rated(30, 20, 1, 5, step=0.5, seed=seed)
    return [(*row, FIRST + int(rng.integers(0, moments))) for row in rows]


@pytest.fixture
def dataset(prepare_rows):
    return prepare_rows(timed())


@pytest.fixture
def store(tmp_path):
    from recsys.feature_store.store import Store

    return Store(tmp_path / "features")
