"""How probable a like is for the scores of lists."""

import numpy as np

from recsys.models.base.family import family_module
from recsys.models.base.list_recommender import ListRecommender
from recsys.testing.datasets import prepared, rated
from recsys.training import taking
from recsys.training.trainer import train


def test_evenly_spaced_users_tell_how_probable_a_like_is(tmp_path, monkeypatch):
    data = prepared(tmp_path, rated(60, 20, 1, 5, step=1))
    asked = []

    class Asked(family_module("ease").EaseRecommender):
        def takes(self, users, items):
            asked.append(np.unique(users))
            return super().takes(users, items)

    chosen = train("ease", data, family_module("ease").Config(), seed=0, refit=False).chosen
    assert isinstance(chosen, ListRecommender)
    chosen.__class__ = Asked
    monkeypatch.setattr(taking, "_MOST_WEIGHED_USERS", 12)
    weights = taking._learn_weights(chosen, data)
    assert 10 <= len(asked[0]) <= 12
    assert np.ptp(asked[0]) > 40
    assert weights.of_bias > 0
