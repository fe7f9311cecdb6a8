"""What every family in src/recsys/models keeps to. A new one is covered by being there."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.family import family_module
from recsys.models.base.loading import load_recommender
from recsys.models.base.storage import load_arrays
from recsys.settings import parse_settings, to_text
from recsys.training.trainer import Training, train
from tests.support.builders import prepared, rated

PROJECT = Path(__file__).resolve().parents[2]

# For data sets of a few hundred ratings; a family that is not named keeps its defaults.
SMALL = {
    "matrix_factorization": {"embedding_size": 8, "learning_rate": 0.05, "batch_size": 64, "patience": 10},
    "random_forest": {"n_estimators": 30},
    "bayesian_mf": {"embedding_size": 8, "samples": 12},
}
# Whether a family can know more of a pair than how its user rates and its item is rated. (A forest can, a little: by
# their averages it tells a few users and items apart. Of a family that is not named nothing is expected.)
KNOWS_PAIRS = {"bias": False, "item_mean": False, "matrix_factorization": True, "bayesian_mf": True}
KNOWS_USERS = {"item_mean": False}  # the others do

SCALES = {
    "1 to 5": (1, 5, 1, 4.0),
    "0.5 to 5": (0.5, 5, 0.5, 3.5),
    "1 to 10": (1, 10, 1, 7.0),
    "-10 to 10, continuous": (-10, 10, 0, 3.0),
}


def fit(family, dataset, seed=42, **options) -> Training:
    config = family_module(family).Config(**SMALL.get(family, {}))
    return train(family, dataset, config, seed=seed, **options)


def text(*ids):
    return np.array(ids, object)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("contract"), rated(40, 30, 1, 5, step=1))


@pytest.fixture(scope="module")
def recommender(family, dataset):
    return fit(family, dataset).final


@pytest.fixture(scope="module")
def pairs(dataset):
    """Every pair of the dataset's users and items, and of one unknown user and one unknown item."""
    users, items = text(*dataset.user_ids, "nobody"), text(*dataset.item_ids, "nothing")
    return np.repeat(users, len(items)), np.tile(items, len(users))


def assert_same(one, other):
    assert one.rating.tolist() == other.rating.tolist()
    assert one.like_probability.tolist() == other.like_probability.tolist()


def test_it_names_itself_and_keeps_its_config(family, recommender):
    assert recommender.family == family
    assert isinstance(recommender.config, family_module(family).Config)


def test_every_pair_gets_a_rating_within_the_scale_and_a_probability(recommender, pairs):
    rating, like = recommender.predict(*pairs)
    for values in (rating, like):
        assert values.shape == pairs[0].shape
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    assert rating.min() >= 1
    assert rating.max() <= 5
    assert like.min() >= 0
    assert like.max() <= 1


def test_predictions_differ_between_items(recommender, dataset):
    rating, like = recommender.predict(np.repeat(dataset.user_ids[:1], len(dataset.item_ids)), dataset.item_ids)
    assert len(np.unique(rating)) > 5
    assert len(np.unique(like)) > 5


@pytest.mark.parametrize(("user", "item"), [("nobody", "i0"), ("u0", "nothing"), ("nobody", "nothing"), ("", "")])
def test_an_unknown_user_or_item_gets_the_bias_fallback(recommender, user, item):
    knowledge = recommender.knowledge
    users, items = knowledge.user_codes(text(user)), knowledge.item_codes(text(item))
    bias = knowledge.biases.rating(users, items)
    rating, like = recommender.predict(text(user), text(item))
    assert rating.tolist() == np.clip(bias, 1, 5).tolist()
    assert like.tolist() == knowledge.calibration.probability(bias).tolist()


def test_no_pair_gives_no_prediction(recommender):
    rating, like = recommender.predict(text(), text())
    assert rating.shape == like.shape == (0,)


def test_a_pair_s_prediction_does_not_depend_on_those_beside_it(recommender, pairs):
    whole = recommender.predict(*pairs)
    order = np.random.default_rng(0).permutation(len(pairs[0]))
    shuffled = recommender.predict(pairs[0][order], pairs[1][order])
    alone = recommender.predict(pairs[0][7:8], pairs[1][7:8])
    for position in range(2):
        assert shuffled[position] == pytest.approx(whole[position][order], abs=1e-5)
        assert alone[position] == pytest.approx(whole[position][7:8], abs=1e-5)


def test_predicting_changes_nothing(recommender, pairs):
    assert_same(recommender.predict(*pairs), recommender.predict(*pairs))


def test_the_same_seed_gives_the_same_predictions(family, dataset, recommender, pairs):
    assert_same(fit(family, dataset).final.predict(*pairs), recommender.predict(*pairs))


def test_loading_gives_what_was_saved(recommender, pairs, tmp_path):
    recommender.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert type(loaded).__name__ == type(recommender).__name__
    assert loaded.config == recommender.config
    assert loaded.importances() == recommender.importances()
    assert_same(loaded.predict(*pairs), recommender.predict(*pairs))


PREDICTS_ELSEWHERE = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "mlflow", "optuna", "matplotlib"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from pathlib import Path
import numpy as np
from recsys import models
from recsys.models.base.loading import load_recommender
models.__path__ = json.loads(sys.argv[2])
loaded = load_recommender(Path(sys.argv[1]))
users, items = (np.array(ids, object) for ids in json.load(sys.stdin))
print(json.dumps([values.tolist() for values in loaded.predict(users, items)]))
"""


@pytest.mark.process
def test_another_process_predicts_the_same_without_what_training_needed(recommender, pairs, tmp_path):
    from recsys import models

    recommender.save(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PREDICTS_ELSEWHERE, str(tmp_path), json.dumps(list(models.__path__))],
        input=json.dumps([ids.tolist() for ids in pairs]),
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [values.tolist() for values in recommender.predict(*pairs)]


def test_nothing_is_pickled(recommender, tmp_path):
    recommender.save(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path in tmp_path.rglob("*"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                files |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
        if path.suffix == ".npz":
            assert load_arrays(path)
    for name, content in files.items():
        assert Path(name).suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".pth"), name
        assert not content.startswith(b"\x80"), f"{name} starts as a pickle does"
        assert not (content.startswith(b"\x93NUMPY") and b"'descr': '|O'" in content[:200]), f"{name} holds objects"


def test_a_saved_folder_can_be_moved(recommender, pairs, tmp_path):
    recommender.save(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert_same(load_recommender(tmp_path / "there").predict(*pairs), recommender.predict(*pairs))


def test_the_config_is_frozen_and_refuses_what_it_does_not_know(family):
    config_class = family_module(family).Config
    name, value = next(iter(config_class().model_dump().items()))
    with pytest.raises(ValidationError):
        setattr(config_class(), name, value)
    with pytest.raises(InputError) as caught:
        parse_settings(config_class, {"no_such_setting": "1"})
    known = ", ".join(config_class.model_fields)
    assert str(caught.value) == f"unknown parameter 'no_such_setting'; known are: {known}"


def test_every_setting_has_a_default_a_meaning_and_a_text_form(family):
    config_class = family_module(family).Config
    assert all(field.description for field in config_class.model_fields.values())
    written = {name: to_text(value) for name, value in config_class().model_dump().items()}
    assert parse_settings(config_class, written) == config_class()


def test_no_setting_has_the_name_of_a_step_s_parameter(family):
    from steps.support.parameters import TrainParameters

    assert not set(family_module(family).Config.model_fields) & set(TrainParameters.model_fields)


def test_the_search_space_gives_valid_settings(family):
    module = family_module(family)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    suggested = [module.suggest(study.ask()) for _ in range(30)]
    assert all(isinstance(config, module.Config) for config in suggested)
    assert len({config.model_dump_json() for config in suggested}) > 20


def test_importances_are_shares(recommender):
    shares = recommender.importances()
    assert all(0 <= share <= 1 for share in shares.values())
    assert not shares or sum(shares.values()) == pytest.approx(1)


def test_progress_is_numbered_and_may_stop_the_fit(family, dataset):
    class StoppedError(Exception):
        pass

    heard = []
    fit(family, dataset, report=lambda epoch, metrics: heard.append((epoch, metrics)))
    assert [epoch for epoch, _ in heard] == sorted({epoch for epoch, _ in heard})
    assert all(np.isfinite(list(metrics.values())).all() for _, metrics in heard)

    def stop(epoch, metrics):
        raise StoppedError

    if heard:
        assert all("validation_rmse" in metrics for _, metrics in heard)
        with pytest.raises(StoppedError):
            fit(family, dataset, report=stop)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_it_ranks_and_rates_additive_effects_on_any_scale(family, scale, prepare_rows):
    low, high, step, like_threshold = scale
    dataset = prepare_rows(rated(60, 40, low, high, step=step), like_threshold=like_threshold)
    measured = evaluate(fit(family, dataset).final, dataset)
    lowest, highest = dataset.scale
    assert measured.predictions.rating.min() >= lowest
    assert measured.predictions.rating.max() <= highest
    assert measured.metrics["rmse"] < 0.8 * measured.rows.ratings.std()
    if KNOWS_USERS.get(family, True):
        assert measured.metrics["auc"] > 0.9
    assert measured.metrics["auc_per_user"] > 0.9
    # The probability means what it says: as many likes as it adds up to.
    assert measured.predictions.like_probability.mean() == pytest.approx(measured.liked.mean(), abs=0.08)


def test_a_checkerboard_is_learnt_by_those_who_know_pairs_and_not_guessed_by_others(family, prepare_rows):
    """Half the users like one half of the items, the others the other: every average is the same."""
    rows = [(f"u{u}", f"i{i}", 5 if u % 2 == i % 2 else 1) for u in range(40) for i in range(40)]
    auc = evaluate(fit(family, prepare_rows(rows)).final, prepare_rows(rows), ranking=False).metrics["auc"]
    if family in KNOWS_PAIRS:
        assert auc > 0.95 if KNOWS_PAIRS[family] else auc < 0.6


def test_a_user_and_an_item_with_one_rating_are_no_problem(family, prepare_rows):
    rows = [*rated(20, 20, 1, 5, step=1), ("hermit", "i1", 5), ("u1", "rarity", 1), ("stranger", "oddity", 3)]
    dataset = prepare_rows(rows)
    rating, like = fit(family, dataset).final.predict(text("hermit", "u1", "stranger"), text("i2", "rarity", "oddity"))
    assert np.isfinite(rating).all()
    assert np.isfinite(like).all()


def test_a_handful_of_ratings_is_enough(family, prepare_rows):
    rows = [(f"u{u}", f"i{i}", 1 + (u + i) % 5) for u in range(4) for i in range(4)]
    rating, like = fit(family, prepare_rows(rows)).final.predict(text("u0", "u3"), text("i0", "i3"))
    assert np.isfinite(rating).all()
    assert np.isfinite(like).all()


@pytest.mark.e2e
def test_it_beats_the_item_mean_on_movielens_100k(family, movielens_100k, tmp_path):
    from recsys.data.builder import prepare
    from recsys.data.preparation import Preparation

    if family == "item_mean":
        pytest.skip("it is the item mean")
    dataset = prepare(movielens_100k, Preparation(), tmp_path)
    measured = evaluate(train(family, dataset, family_module(family).Config(), seed=42).final, dataset, ranking=False)
    learnt = dataset.train.joined(dataset.validation)
    count = np.bincount(learnt.items, minlength=len(dataset.item_ids))
    total = np.bincount(learnt.items, weights=learnt.ratings, minlength=len(dataset.item_ids))
    means = np.where(count > 0, total / np.maximum(count, 1), learnt.ratings.mean())[dataset.test.items]
    from recsys import metrics

    assert measured.metrics["rmse"] < metrics.rmse(dataset.test.ratings, means)
    assert measured.metrics["auc"] > metrics.auc(measured.liked, means)
