import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.testing.datasets import prepared, rated
from recsys.training.trainer import train

ROWS = rated(60, 40, 1, 5, step=1)
SETTINGS = {
    "bayesian_mf": {"embedding_size": 4, "samples": 12},
    "matrix_factorization": {"embedding_size": 4, "batch_size": 64},
}


def text(*ids):
    return np.array(ids, object)


@pytest.fixture(scope="module", params=SETTINGS)
def recommender(request, tmp_path_factory):
    """Trained without the users u0 to u9."""
    rows = [row for row in ROWS if int(row[0][1:]) >= 10]
    dataset = prepared(tmp_path_factory.mktemp("folding"), rows)
    config = family_module(request.param).Config(**SETTINGS[request.param])
    return train(request.param, dataset, config, seed=0).final


def columns(rows):
    users, items, ratings = zip(*rows, strict=True)
    return text(*users), text(*items), np.array(ratings, float)


def test_users_folded_in_are_predicted_far_better_than_unknown_ones(recommender):
    own = [row for row in ROWS if int(row[0][1:]) < 10]
    asked, brought = columns(own[::3]), columns([row for place, row in enumerate(own) if place % 3])
    folded = recommender.fold_in(*brought)
    assert folded.ignored == 0

    def rmse(recommender):
        return np.sqrt(np.mean((recommender.predict(*asked[:2]).rating - asked[2]) ** 2))

    assert rmse(folded.recommender) < 0.7 * rmse(recommender)
    knowledge = folded.recommender.knowledge
    code = int(knowledge.user_codes(text("u3"))[0])
    rated_items = {item for user, item, _ in zip(*brought, strict=True) if user == "u3"}
    assert set(knowledge.item_ids[knowledge.seen_items(code)]) == rated_items


def test_the_other_users_stay_as_they_were(recommender):
    folded = recommender.fold_in(text("u1", "new", "new"), text("i1", "i2", "i3"), np.array([1.0, 5, 3])).recommender
    users, items = np.repeat(recommender.knowledge.user_ids, 2), text(*["i1", "i5"] * 50)
    assert folded.predict(users, items).rating.tolist() == recommender.predict(users, items).rating.tolist()
    first = recommender.knowledge
    for code in range(len(first.user_ids)):
        assert folded.knowledge.seen_items(code).tolist() == first.seen_items(code).tolist()


def test_a_known_user_s_ratings_replace_the_old_ones(recommender):
    items = recommender.knowledge.item_ids
    low = recommender.fold_in(np.full(len(items), "u20", object), items, np.ones(len(items))).recommender
    assert len(low.knowledge.user_ids) == len(recommender.knowledge.user_ids)
    assert low.predict(text("u20"), text("i3")).rating[0] < 1.6
    assert len(low.knowledge.seen_items(int(low.knowledge.user_codes(text("u20"))[0]))) == len(items)


def test_a_folded_recommender_is_saved_and_loaded_whole(recommender, tmp_path):
    from recsys.models.base.loading import load_recommender

    folded = recommender.fold_in(text("new"), text("i2"), np.array([5.0])).recommender
    folded.save(tmp_path)
    pairs = text("new", "u20"), text("i7", "i7")
    loaded = load_recommender(tmp_path).predict(*pairs)
    assert [values.tolist() for values in loaded] == [values.tolist() for values in folded.predict(*pairs)]


def test_the_bias_of_a_user_folded_in_is_damped(recommender):
    biases = recommender.knowledge.biases
    items = recommender.knowledge.item_codes(text("i1", "i2"))
    knowledge = recommender.fold_in(text("new", "new"), text("i1", "i2"), np.array([5.0, 4])).recommender.knowledge
    bias = knowledge.biases.user[knowledge.user_codes(text("new"))[0]]
    assert bias == pytest.approx((np.array([5, 4]) - biases.mean - biases.item[items]).sum() / (2 + 5))


def test_unknown_items_are_ignored_and_counted(recommender):
    folded = recommender.fold_in(text("a", "a", "b"), text("i1", "?", "?"), np.array([5.0, 5, 5]))
    assert folded.ignored == 2
    assert folded.recommender.knowledge.user_codes(text("a", "b")).tolist()[1] == -1
    nothing = recommender.fold_in(text("b"), text("?"), np.array([5.0]))
    assert (nothing.recommender, nothing.ignored) == (recommender, 1)


def test_the_last_of_several_ratings_of_an_item_counts(recommender):
    twice = recommender.fold_in(text("a", "a"), text("i1", "i1"), np.array([1.0, 5])).recommender
    once = recommender.fold_in(text("a"), text("i1"), np.array([5.0])).recommender
    pair = text("a"), text("i2")
    assert twice.predict(*pair).rating.tolist() == once.predict(*pair).rating.tolist()


@pytest.mark.parametrize("rating", [0.5, 6, float("nan")])
def test_a_rating_outside_the_scale_is_refused(recommender, rating):
    with pytest.raises(InputError, match=r"rating 1 \(user 'b', item 'i2'\): expected a number from 1 to 5.*got"):
        recommender.fold_in(text("a", "b"), text("i1", "i2"), np.array([3, rating]))


def test_as_many_users_items_and_ratings_are_needed(recommender):
    with pytest.raises(InputError, match="got 1, 2 and 1"):
        recommender.fold_in(text("a"), text("i1", "i2"), np.array([3.0]))


def test_a_family_that_cannot_says_which_can(tmp_path):
    dataset = prepared(tmp_path, ROWS)
    recommender = train("bias", dataset, family_module("bias").Config(), seed=0).final
    able = "bayesian_mf, ease, matrix_factorization, neighbourhood"
    with pytest.raises(InputError, match=f"'bias': it cannot fold in ratings, {able} can"):
        recommender.fold_in(text("a"), text("i1"), np.array([3.0]))
