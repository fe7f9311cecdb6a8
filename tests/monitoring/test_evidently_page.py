import warnings

import numpy as np
import pandas as pd

from recsys.monitoring.evidently_page import MOST_BYTES, write_page
from recsys.monitoring.rated import Rated


def test_a_page_of_a_version_that_expects_the_same_of_all_warns_of_nothing(tmp_path):
    random = np.random.default_rng(0)
    users, items = random.integers(40, size=400), random.integers(60, size=400)
    ratings = random.integers(1, 6, size=400).astype(float)
    ids = users.astype(str).astype(object), items.astype(str).astype(object)
    same = np.full(400, 3.0)
    rated = Rated(*ids, users, ratings, ratings >= 4, same, same, random.random(400), same, same)
    learnt = pd.DataFrame({"user_id": ids[0], "item_id": ids[1], "rating": ratings})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        size = write_page(tmp_path / "page.html", rated, rated, learnt)
    assert 100_000 < size == (tmp_path / "page.html").stat().st_size <= MOST_BYTES
