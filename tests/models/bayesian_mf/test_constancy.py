"""Users who always give the same rating."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.models.base.loading import load_recommender
from recsys.models.bayesian_mf.alternatives import average, damp, sample_apart, with_constancy
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.constancy import learn_constancy
from recsys.models.bayesian_mf.posterior import normal_cdf
from recsys.testing.datasets import prepared, sparse_ratings
from recsys.training.trainer import fit_tasks, train


def rows(*ratings_of_users):
    users = np.repeat(np.arange(len(ratings_of_users), dtype=np.int32), [len(ratings) for ratings in ratings_of_users])
    items = np.concatenate([np.arange(len(ratings)) for ratings in ratings_of_users]).astype(np.int32)
    return Interactions(users, items, np.concatenate(ratings_of_users).astype(float))


def test_each_equal_rating_takes_a_share_of_what_is_left_to_the_model():
    found = learn_constancy(rows([3, 3, 3], [4, 4], [5], [1, 2], []), 5, strength=0.5)
    assert found.weight.tolist() == [0.75, 0.5, 0, 0, 0]
    assert found.level.tolist() == [3, 4, 0, 0, 0]
    expected = found.blend(np.array([0, 1, 2, 3]), np.array([2.0, 2, 2, 2]))
    assert expected.tolist() == [2.75, 3, 2, 2]


def test_users_who_are_folded_in_get_their_own_and_others_keep_theirs():
    found = learn_constancy(rows([3, 3], [4, 4], [1, 2]), 3, strength=0.5)
    found = found.with_users(rows([], [4, 5], [], [2, 2]), 4)
    assert found.weight.tolist() == [0.5, 0, 0, 0.5]
    assert found.level.tolist() == [3, 0, 0, 2]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Sampled factors, sampled biases, their means and damped biases, with the rows."""
    data = prepared(
        tmp_path_factory.mktemp("constancy"), sparse_ratings(300, 60, median=4, constant=0.6), like_threshold=4.0
    )
    task = next(fit_tasks(data, refit=False))
    knowledge, ratings, config = task.knowledge, task.rows, Config(embedding_size=3, samples=4)
    factors = sample_apart(knowledge, ratings, config, 0, None, None, 3.5, limit=1.0)
    biases = sample_apart(knowledge, ratings, config, 0, None, None, 3.5)
    curve = knowledge.calibration
    found = {"factors": factors, "biases": biases, "means": average(biases, curve)}
    found["damped"] = damp(biases, ratings, 2.0, curve)
    return {name: with_constancy(one, ratings, 0.75) for name, one in found.items()}, ratings


@pytest.mark.parametrize("name", ["factors", "biases", "means", "damped"])
def test_what_is_served_and_saved_is_what_is_predicted(fitted, name, tmp_path):
    recommender, ratings = fitted[0][name], fitted[1]
    weight, users, items = recommender.constancy.weight, ratings.users, ratings.items
    assert 0.3 < np.mean(weight > 0) < 0.9
    predicted = recommender.score(users, items)
    free = with_constancy(recommender, ratings, 0)
    assert free.constancy is None
    low, high = recommender.knowledge.scale
    raw = free._score_known(users, items).rating
    blended = (1 - weight[users]) * raw + weight[users] * recommender.constancy.level[users]
    assert predicted.rating == pytest.approx(np.clip(blended, low, high), abs=1e-5)
    factors, draws = recommender.rating_factors(), recommender.scoring_draws()
    by_factors = factors.constant + factors.scale * np.einsum("nk,nk->n", factors.users[users], factors.items[items])
    assert by_factors == pytest.approx(blended, abs=1e-3)
    each = np.einsum("nsk,nsk->ns", draws.users[users].astype(float), draws.items[items])
    assert draws.constant + draws.scale * each.mean(1) == pytest.approx(blended, abs=1e-3)
    if draws.link == "probit":
        spread = np.sqrt(draws.user_variance[users] + draws.scale**2 * each.var(1))
        assert predicted.like_probability == pytest.approx(normal_cdf((blended - draws.threshold) / spread), abs=1e-3)
    recommender.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    assert loaded.choices() == recommender.choices()
    again = loaded.score(users, items)
    assert again.rating == pytest.approx(predicted.rating, abs=1e-6)
    assert again.like_probability == pytest.approx(predicted.like_probability, abs=1e-6)


def test_a_new_user_of_one_level_is_drawn_to_it(fitted):
    recommender = fitted[0]["biases"]
    items = recommender.knowledge.item_ids[[1, 2, 3, 4]].astype(object)
    constant, varied = (
        recommender.fold_in(np.array(["new"] * 4, object), items, np.array(ratings)).recommender.constancy
        for ratings in ([2.0, 2, 2, 2], [2.0, 2, 2, 5])
    )
    assert constant.weight[-1] == 1 - 0.25**3
    assert constant.level[-1] == 2
    assert varied.weight[-1] == 0
    assert constant.weight[:-1].tolist() == recommender.constancy.weight.tolist()


@pytest.mark.simulation
@pytest.mark.parametrize(("constant", "is_taken"), [(0.6, True), (0.0, False)])
def test_validation_takes_it_where_users_are_constant(constant, is_taken, tmp_path):
    """With one noise for all: factors that ratings count for by each user's noise may do without, as seeds have it."""
    data = prepared(
        tmp_path, sparse_ratings(700, 100, median=4, constant=constant, top=0.4, seed=5), like_threshold=4.0
    )
    result = train("bayesian_mf", data, Config(user_noise="false"), seed=0, lists=False)
    assert (result.chosen.choices()["constancy"] > 0) == is_taken
    assert result.final.choices()["constancy"] == result.chosen.choices()["constancy"]
    if is_taken:
        both = data.train.joined(data.validation)
        users, test = data.test.users, data.test
        known = result.final.constancy.weight[result.final.knowledge.user_codes(data.user_ids[users])] > 0
        known &= np.bincount(both.users, minlength=len(data.user_ids))[users] > 1
        free = with_constancy(result.final, both, 0)
        ids = data.user_ids[users], data.item_ids[test.items]
        errors = [(one.predict(*ids).rating - test.ratings)[known] ** 2 for one in (result.final, free)]
        assert errors[0].mean() < 0.8 * errors[1].mean()
