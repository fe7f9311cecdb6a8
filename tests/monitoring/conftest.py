import numpy as np
import pytest

from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge
from recsys.monitoring.rated import reference_of
from tests.support.builders import TableRecommender
from tests.support.served_traffic import given_of

USERS, ITEMS = 150, 60


@pytest.fixture(scope="session")
def world():
    """A version that knows the truth of 150 users and 60 items, and ratings that it has not learnt from."""
    random = np.random.default_rng(0)
    taste = 3.2 + random.normal(0, 0.6, USERS)[:, None] + random.normal(0, 0.6, ITEMS)[None, :]
    like = 1 / (1 + np.exp(-2.2 * (taste - 3.5)))
    seen = np.argwhere(random.random((USERS, ITEMS)) < 0.3).astype(np.int32)
    ids = [np.array(sorted(f"{kind}{at}" for at in range(n)), object) for kind, n in (("u", USERS), ("i", ITEMS))]
    biases = Biases(3.2, np.zeros(USERS), np.zeros(ITEMS))
    knowledge = Knowledge(*ids, seen, (1.0, 5.0), 4.0, biases, LikeCalibration(2.2, -7.7))
    recommender = TableRecommender(knowledge, taste, like)
    free = np.ones((USERS, ITEMS), bool)
    free[seen[:, 0], seen[:, 1]] = False
    pairs = random.permutation(np.argwhere(free))
    ratings = np.clip(np.round(taste[pairs[:, 0], pairs[:, 1]] + random.normal(0, 0.7, len(pairs))), 1, 5)
    users, items = ids[0][pairs[:, 0]], ids[1][pairs[:, 1]]
    half = len(pairs) // 2
    reference = reference_of(recommender, users[:half], items[:half], ratings[:half], pairs[:half, 0])
    return recommender, reference, given_of(users[half:], items[half:], ratings[half:])
