import numpy as np
import pytest

from recsys.models import random_forest
from recsys.training.trainer import train


def noise(users=400, each=8, items=40):
    """Ratings drawn at random: nothing can be known of them beyond their mean."""
    rng = np.random.default_rng(0)
    chosen = [(user, item) for user in range(users) for item in rng.choice(items, each, replace=False)]
    return [(f"u{user}", f"i{item}", int(rng.integers(1, 6))) for user, item in chosen]


def spread_of_predictions(dataset):
    fitted = train("random_forest", dataset, random_forest.Config(n_estimators=30), seed=42, refit=False).chosen
    return fitted.predict(dataset.user_ids[dataset.train.users], dataset.item_ids[dataset.train.items]).rating.std()


def test_a_forest_does_not_read_ratings_back_from_the_averages_they_are_in(prepare_rows, monkeypatch):
    dataset = prepare_rows(noise())
    honest = spread_of_predictions(dataset)

    def with_own_rating(users, items, ratings, n_users, n_items, *, seed):
        return random_forest.learn_features(users, items, ratings, n_users, n_items).table(users, items)

    monkeypatch.setattr(random_forest, "out_of_fold_table", with_own_rating)
    leaking = spread_of_predictions(dataset)
    assert honest < 0.5 * leaking


def test_a_finer_scale_is_cut_where_likes_begin():
    ratings = np.linspace(-10, 10, 1001)
    levels, level_ratings, level_liked = random_forest._levels(ratings, 3.0)
    assert set(level_liked) == {0.0, 1.0}
    assert (level_liked[levels] == (ratings >= 3)).all()
    assert level_ratings == pytest.approx([ratings[levels == level].mean() for level in range(len(level_ratings))])


def test_a_coarse_scale_has_a_level_for_every_rating():
    levels, level_ratings, level_liked = random_forest._levels(np.array([5.0, 1, 3, 1]), 3.0)
    assert levels.tolist() == [2, 0, 1, 0]
    assert level_ratings.tolist() == [1, 3, 5]
    assert level_liked.tolist() == [0, 1, 1]
