import zipfile

import numpy as np
import optuna
import pytest
import skops.io

from recsys.errors import InputError
from recsys.models import random_forest
from recsys.models.base.loading import load_recommender
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


def test_coarse_values_are_few_keep_the_order_and_stay_near():
    values = np.random.default_rng(0).normal(size=10_000) ** 3
    coarse = random_forest._coarsen(values)
    assert len(np.unique(coarse)) == 128
    assert (np.diff(coarse[np.argsort(values)]) >= 0).all()
    ranks = np.sort(values)
    assert (coarse >= ranks[np.maximum(np.searchsorted(ranks, values) - 79, 0)]).all()  # 10,000 / 128 is 78.1
    assert (coarse <= ranks[np.minimum(np.searchsorted(ranks, values) + 79, 9_999)]).all()


def test_a_few_values_stay_as_they_are():
    values = np.array([3.0, 1.0, 1.0, 2.5])
    assert random_forest._coarsen(values).tolist() == values.tolist()


def test_a_tree_sees_the_share_of_rows_that_was_asked_for(prepare_rows):
    dataset = prepare_rows(noise())

    def rows_of_a_tree(**given):
        config = random_forest.Config(n_estimators=3, **given)
        fitted = train("random_forest", dataset, config, seed=7, refit=False, lists=False).chosen
        return fitted.trees[0].weighted_n_node_samples[0]

    rows = len(dataset.train)
    assert rows_of_a_tree() == round(rows / 2)
    assert rows_of_a_tree(max_samples=0.25) == round(rows / 4)
    assert rows_of_a_tree(max_samples=1e-9) == 1
    assert rows_of_a_tree(bootstrap=False) == rows


@pytest.fixture
def grow(prepare_rows):
    dataset = prepare_rows(noise())
    config = random_forest.Config(n_estimators=4, max_depth=None, min_samples_leaf=1)
    return lambda: train("random_forest", dataset, config, seed=7, refit=False).chosen


def test_the_same_data_and_seed_give_the_same_bytes(grow, tmp_path):
    one, other = grow(), grow()
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "forest.npz" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


@pytest.mark.parametrize("written", ["by us", "by skops, as versions before 2026-12 were"])
def test_a_saved_forest_predicts_as_before(grow, tmp_path, monkeypatch, written):
    grown, of = [], random_forest._trees_of
    monkeypatch.setattr(random_forest, "_trees_of", lambda forest: of(grown.append(forest) or forest))
    recommender = grow()
    recommender.save(tmp_path)
    if written != "by us":
        (tmp_path / "forest.npz").unlink()
        skops.io.dump(grown[0], tmp_path / "forest.skops", compression=zipfile.ZIP_DEFLATED, compresslevel=3)
    pairs = np.repeat(np.arange(400, dtype=np.int32), 40), np.tile(np.arange(40, dtype=np.int32), 400)
    expected, again = recommender.score(*pairs), load_recommender(tmp_path)
    assert [values.tolist() for values in again.score(*pairs)] == [values.tolist() for values in expected]
    assert again.importances() == recommender.importances()


def test_answers_are_those_of_scikit_learn(grow, monkeypatch):
    grown, of = [], random_forest._trees_of
    monkeypatch.setattr(random_forest, "_trees_of", lambda forest: of(grown.append(forest) or forest))
    recommender = grow()
    pairs = np.arange(40, dtype=np.int32), np.arange(40, dtype=np.int32)
    table = recommender.features.table(*pairs)[:, random_forest._COLUMNS].astype(np.float32)
    expected = grown[0].set_params(n_jobs=1).predict_proba(table) @ recommender.level_ratings
    assert recommender.score(*pairs).rating.tolist() == np.clip(expected, 1, 5).tolist()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("left", lambda values: np.where(values > 0, 0, values)),  # a circle
        ("right", lambda values: np.where(values > 0, 1 << 20, values)),
        ("feature", lambda values: np.where(values >= 0, 100, values)),
        ("sizes", lambda values: values + 1),
        ("sizes", lambda values: values - values),
    ],
)
def test_trees_that_point_outside_themselves_are_refused(grow, tmp_path, name, change):
    grow().save(tmp_path)
    arrays = dict(np.load(tmp_path / "forest.npz"))
    np.savez(tmp_path / "forest.npz", **(arrays | {name: change(arrays[name])}))
    with pytest.raises(InputError, match=r"forest\.npz: tree \d is damaged; train the version again"):
        load_recommender(tmp_path)


@pytest.mark.filterwarnings("error")  # Optuna warns where a given value is outside its range
def test_the_default_settings_lie_in_the_search_space():
    default = random_forest.Config().model_dump()
    study = optuna.create_study()
    study.enqueue_trial(default)
    assert random_forest.suggest(study.ask()).model_dump() == default
