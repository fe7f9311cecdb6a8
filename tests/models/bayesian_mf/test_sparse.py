"""On few ratings a user, many of them at the top, it is no worse than biases."""

import json

import numpy as np
import pytest

from bench.sparse import FAMILIES, behind_best
from recsys.models.base.biases import learn_biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.family import FitOptions, family_module
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Predictions
from recsys.models.base.storage import DESCRIPTION
from recsys.models.bayesian_mf import family
from recsys.models.bayesian_mf.alternatives import average, damp, sample_apart, with_common_noise, with_own_fallback
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.evidence import auc_standard_errors, has_settled, standard_errors
from recsys.testing.datasets import prepared, sparse_ratings
from recsys.training.trainer import fit_tasks, train

pytestmark = pytest.mark.simulation

SETS = {
    "one rating in the median": {"users": 1500, "items": 150, "median": 1, "constant": 0.0},
    "most users constant": {"users": 1200, "items": 150, "median": 2, "constant": 0.7},
    "skewed to the top": {"users": 500, "items": 200, "median": 5, "constant": 0.5, "top": 0.8},
    "from -10 to 10": {"users": 700, "items": 150, "median": 3, "constant": 0.3, "levels": range(-10, 11), "top": 0.3},
    "nothing but biases": {"users": 700, "items": 150, "median": 4, "constant": 0.4, "signal": 0.0},
    "factors that grow for ever": {"users": 3000, "items": 300, "median": 1, "constant": 0.0, "seed": 2},
    "half constant, many ratings": {
        "users": 280,
        "items": 66,
        "median": 20,
        "constant": 0.53,
        "top": 0.42,
        "signal": 1.0,
    },
    "ten users": {"users": 10, "items": 100, "median": 20, "constant": 0.3},
}


def like_threshold(knobs):
    levels = knobs.get("levels", range(1, 6))
    return levels[-2]


def made(name, folder):
    return prepared(folder, sparse_ratings(**SETS[name]), like_threshold=float(like_threshold(SETS[name])))


def predict(family: str, data, config=None) -> Predictions:
    ids = data.user_ids[data.test.users], data.item_ids[data.test.items]
    config = config or family_module(family).Config()
    return train(family, data, config, seed=0, lists=False).final.predict(*ids)


@pytest.mark.parametrize("name", SETS)
def test_it_is_not_behind_simpler_families(name, tmp_path):
    """Neither by the rule of one standard error, nor by one of the paired difference, which is a smaller one."""
    data = made(name, tmp_path)
    found = {family: predict(family, data) for family in FAMILIES}
    sampled, test, likes = found["bayesian_mf"], data.test, data.likes(data.test)
    assert max(behind_best(found, sampled, test, likes)) <= 1
    # Another chain of another model is ahead or behind by chance, too: of such a difference two are allowed.
    for simpler, least in (("bias", -1), ("matrix_factorization", -2)):
        other = found[simpler]
        gain = (other.rating - test.ratings) ** 2 - (sampled.rating - test.ratings) ** 2
        assert standard_errors(gain, test.users) > least
        assert auc_standard_errors(likes, sampled.like_probability, other.like_probability, test.users) > least


def test_the_rule_of_one_standard_error_fails_a_model_that_nothing_simpler_replaces(tmp_path):
    """Where a term is set, nothing takes the model's place, and its factors fit noise."""
    data = made("factors that grow for ever", tmp_path)
    over_fitted = predict("bayesian_mf", data, Config(implicit="true"))
    found = {"bias": predict("bias", data), "bayesian_mf": over_fitted}
    assert max(behind_best(found, over_fitted, data.test, data.likes(data.test))) > 1


def test_a_chain_whose_noise_shrinks_on_and_on_has_not_settled():
    assert has_settled([2.0, 2.1, 2.0, 2.1, 1.9, 2.1])
    assert has_settled([2.0, 1.5, 1.2])  # factors that an over-fitted start has made too large
    assert has_settled([2.0])
    assert not has_settled([1.3, 1.3, 1.4, 1.6, 1.8, 2.3])


def test_users_who_always_give_the_same_rating_do_not_decide_what_items_are_worth(tmp_path):
    """Seven users in ten give their one level to all items: the spread of the item biases stays that of the others."""
    rows = sparse_ratings(1500, 60, median=5, constant=0.7, top=0.3, signal=0.0)
    data = prepared(tmp_path, rows)
    sampled = train("bayesian_mf", data, Config(), seed=0).final
    bias = train("bias", data, family_module("bias").Config(), seed=0).final
    spread = (sampled.draws.items.mean(1)[:, -1] * sampled.unit).std()
    assert spread > 0.6 * bias.knowledge.biases.item.std()
    assert sampled.factors == 0
    assert not sampled.user_noise


def test_the_knobs_turn_what_they_name():
    rows = sparse_ratings(2000, 300, median=3, constant=0.6, top=0.5, levels=(-10, 0, 10))
    users, ratings = (np.array([row[column] for row in rows]) for column in (0, 2))
    assert set(ratings) == {-10.0, 0.0, 10.0}
    assert np.mean(ratings == 10) == pytest.approx(0.5, abs=0.05)
    _, number, counts = np.unique(users, return_inverse=True, return_counts=True)
    assert np.median(counts) == 3
    same = [len(set(ratings[number == user])) == 1 for user in np.flatnonzero(counts >= 8)]
    assert np.mean(same) == pytest.approx(0.6, abs=0.1)
    assert rows == sparse_ratings(2000, 300, median=3, constant=0.6, top=0.5, levels=(-10, 0, 10))


def test_a_version_that_predicts_by_biases_is_saved_and_versions_without_a_word_of_it_load(tmp_path):
    data = prepared(tmp_path, sparse_ratings(400, 60, median=2), like_threshold=4.0)
    sampled = train("bayesian_mf", data, Config(embedding_size=2, samples=2), seed=0).final
    sampled.is_plain, sampled.constancy = True, None
    ids = data.user_ids[data.test.users], data.item_ids[data.test.items]
    plain = sampled.predict(*ids)
    knowledge = sampled.knowledge
    rating = knowledge.biases.rating(knowledge.user_codes(ids[0]), knowledge.item_codes(ids[1]))
    assert plain.rating == pytest.approx(np.clip(rating, 1, 5))
    sampled.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved").predict(*ids)
    assert loaded.like_probability.tolist() == plain.like_probability.tolist()
    path = tmp_path / "saved" / DESCRIPTION
    description = json.loads(path.read_text())
    for key in ("plain", "user_noise"):
        del description["weights"][key]
    del description["config"]["user_noise"]
    path.write_text(json.dumps(description))
    earlier = load_recommender(tmp_path / "saved")
    assert earlier.user_noise
    assert not earlier.is_plain


def test_averaged_biases_expect_what_the_draws_expect_with_one_curve_of_likes_and_are_saved(tmp_path):
    data = prepared(tmp_path, sparse_ratings(400, 60, median=2), like_threshold=4.0)
    task = next(fit_tasks(data, refit=False))
    sampled = sample_apart(task.knowledge, task.rows, Config(samples=3), 0, None, None, 3.5)
    averaged = average(sampled, LikeCalibration(2.0, -7.0))
    pairs = task.rows.users, task.rows.items
    rating, like = averaged.score(*pairs)
    assert rating == pytest.approx(sampled.score(*pairs).rating, abs=1e-3)
    inside = (rating > 1) & (rating < 5)
    assert like[inside] == pytest.approx(1 / (1 + np.exp(7 - 2 * rating[inside])))
    averaged.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert loaded.averaged
    assert loaded.score(*pairs).like_probability == pytest.approx(like, abs=1e-6)
    assert not sampled.averaged


def test_where_most_ratings_are_at_the_top_all_users_get_one_noise_and_likes_are_told_better(tmp_path, monkeypatch):
    rows = sparse_ratings(500, 150, median=20, constant=0.1, top=0.77, signal=0.63)
    data = prepared(tmp_path, rows, like_threshold=4.0)
    ids, likes = (data.user_ids[data.test.users], data.item_ids[data.test.items]), data.likes(data.test)
    chosen = train("bayesian_mf", data, Config(), seed=0, lists=False).final
    monkeypatch.setattr(family, "choose_noise", lambda one, *_: one)
    own = train("bayesian_mf", data, Config(), seed=0, lists=False).final
    assert (chosen.common_noise, own.common_noise) == (True, False)
    answers = [one.predict(*ids).like_probability for one in (chosen, own)]
    assert auc_standard_errors(likes, *answers, data.test.users) > 1


def test_one_noise_for_all_users_is_saved_and_kept_by_the_second_fit(tmp_path):
    data = prepared(tmp_path, sparse_ratings(400, 60, median=5), like_threshold=4.0)
    first, second = fit_tasks(data, refit=True)
    config = Config(embedding_size=2, samples=4)
    own = family.fit(first.knowledge, first.rows, config, FitOptions(0))
    common = with_common_noise(own, first.rows)
    assert own.draws.noise.std() > 0
    assert common.draws.noise == pytest.approx(np.full(len(own.draws.noise), own.draws.noise[first.rows.users].mean()))
    pairs = first.rows.users, first.rows.items
    assert common.score(*pairs).rating.tolist() == own.score(*pairs).rating.tolist()
    assert common.score(*pairs).like_probability.tolist() != own.score(*pairs).like_probability.tolist()
    again = family.fit(second.knowledge, second.rows, config, FitOptions(0, warm_start=common))
    assert again.common_noise
    assert np.ptp(again.draws.noise) == 0
    again.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert loaded.choices()["common_noise"]
    assert loaded.score(*pairs).like_probability == pytest.approx(again.score(*pairs).like_probability, abs=1e-6)


@pytest.mark.parametrize("factors", [0, 3])
def test_a_user_is_expected_to_rate_an_unknown_item_as_the_known_ones_are_on_average(factors, tmp_path):
    """In the first fit and in the second: the draws share a rating's mean between users and items as chance has it."""
    levels = range(-10, 11)
    data = prepared(tmp_path, sparse_ratings(300, 40, median=3, levels=levels), like_threshold=5.0)
    first, second = fit_tasks(data, refit=True)
    config = Config(embedding_size=max(factors, 1), samples=4)
    sampled = sample_apart(first.knowledge, first.rows, config, 0, None, None, 3.5, limit=9.0 if factors else None)
    curve = first.knowledge.calibration
    asked = {with_own_fallback: with_own_fallback(sampled)} | ({} if factors else {average: average(sampled, curve)})
    again = {
        made: family.fit(second.knowledge, second.rows, config, FitOptions(0, warm_start=one))
        for made, one in asked.items()
    }
    for made, one in [*asked.items(), *again.items()]:
        n_users, n_items = len(one.knowledge.user_ids), len(one.knowledge.item_ids)
        users, items = (codes.ravel() for codes in np.indices((n_users, n_items), np.int32))
        known = (one.centre + one.unit * one.draws.predict(users, items)[0]).reshape(n_users, n_items)
        of_user, nobody = np.arange(n_users, dtype=np.int32), np.full(n_items, -1, np.int32)
        rating, like = one.score(of_user, np.full(n_users, -1, np.int32))
        assert rating == pytest.approx(np.clip(known.mean(1), -10, 10), abs=1e-4)
        assert like == pytest.approx(curve.probability(known.mean(1)), abs=1e-4)
        of_item = one.score(nobody, np.arange(n_items, dtype=np.int32)).rating
        task = first if len(one.knowledge.seen) == len(first.rows) else second
        damped = task.knowledge.biases.mean + task.knowledge.biases.item
        expected = known.mean(0) if made is average else damped
        assert of_item == pytest.approx(np.clip(expected, -10, 10), abs=1e-4)
    saved = again[with_own_fallback]
    saved.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert loaded.own_fallback
    assert loaded.score(users, nobody[:1].repeat(len(users))).rating.tolist() == pytest.approx(
        saved.score(users, nobody[:1].repeat(len(users))).rating.tolist()
    )


def test_damped_biases_and_a_limit_of_the_noise_are_saved_and_kept_by_the_second_fit(tmp_path):
    data = prepared(tmp_path, sparse_ratings(400, 60, median=2), like_threshold=4.0)
    task = next(fit_tasks(data, refit=False))
    config = Config(embedding_size=2, samples=3)
    bounded = sample_apart(task.knowledge, task.rows, config, 0, None, None, 3.5, limit=0.5)
    assert max(bounded.draws.precision) == 0.5
    damped = damp(bounded, task.rows, 2.0, LikeCalibration(2.0, -7.0))
    damped.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert (loaded.damping, loaded.noise_limit, loaded.is_plain) == (2.0, 0.5, True)
    rating, like = loaded.score(task.rows.users, task.rows.items)
    biases = learn_biases(task.rows.users, task.rows.items, task.rows.ratings, 400, len(data.item_ids), damping=2.0)
    assert rating == pytest.approx(np.clip(biases.rating(task.rows.users, task.rows.items), 1, 5))
    again = family.fit(task.knowledge, task.rows, config, FitOptions(0, warm_start=loaded))
    assert max(again.draws.precision) <= 0.5
    assert again.score(task.rows.users, task.rows.items).like_probability == pytest.approx(like)
