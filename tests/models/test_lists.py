"""Lists of every family: who is alike in what they take is told by who rated what."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.models.base.item_to_item import Regression, count_together, learn_item_to_item
from recsys.models.base.knowledge import Knowledge, sorted_pairs
from recsys.models.base.lists import History, ListModel, rated_items
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Recommender
from recsys.testing.datasets import prepared
from recsys.training.trainer import train

USERS, ITEMS = 24, 16
SMALL = {"epochs": 2, "samples": 2, "n_estimators": 2}


def ids(*names: str) -> np.ndarray:
    return np.array(names, object)


def checkerboard():
    """Even users take even items, odd users odd ones; each leaves out one of their own, and their ratings vary."""
    for user in range(USERS):
        for item in range(user % 2, ITEMS, 2):
            if item // 2 != user // 2 % (ITEMS // 2):
                yield f"u{user:02}", f"i{item:02}", 1 + (user + item // 2) % 5


def left_out(user: int) -> str:
    return f"i{user % 2 + 2 * (user // 2 % (ITEMS // 2)):02}"


def fitted(family: str, folder: Path, **arguments) -> Recommender:
    config = family_module(family).Config
    small = {name: value for name, value in SMALL.items() if name in config.model_fields}
    dataset = prepared(folder, checkerboard(), test_size=0.05, validation_size=0.05)
    return train(family, dataset, config(**small), seed=1, **arguments).final


@pytest.fixture(scope="module", params=family_names())
def recommender(request, tmp_path_factory):
    return fitted(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def bias(tmp_path_factory):
    return fitted("bias", tmp_path_factory.mktemp("bias"))


def test_what_a_user_left_out_of_a_checkerboard_comes_first(recommender):
    every = recommender.knowledge.user_ids
    found = recommender.recommend(every, ITEMS)
    assert set(found.policy) == {"personal"}
    for user, items in zip(every, found.items, strict=True):
        own = int(user[1:]) % 2
        count = ITEMS // 2 - len(recommender.lists.rated.of(int(recommender.knowledge.user_codes(ids(user))[0]))[0])
        first = items[:count]
        assert left_out(int(user[1:])) in first
        assert {int(item[1:]) % 2 for item in first} == {own}


def test_a_history_alone_gives_the_same(recommender):
    history = History(ids(*(f"i{item:02}" for item in range(0, ITEMS - 2, 2))))
    found = recommender.recommend(ids("new", "other"), 3, history=[history, None])
    assert found.policy == ["history", "popular"]
    assert found.items[0][0] == f"i{ITEMS - 2:02}"
    assert [len(items) for items in found.items] == [3, 3]


def test_a_list_is_as_long_as_asked_where_so_many_items_exist(recommender):
    kept = recommender.knowledge.item_ids[:6]
    for n in (1, 4, 6, 20):
        found = recommender.recommend(ids("u00", "nobody"), n, candidates=kept, exclude=kept[:1], exclude_seen=False)
        assert [len(items) for items in found.items] == [min(n, 5)] * 2
        assert all(set(items) <= set(kept[1:]) for items in found.items)
        assert all(bool(note) == (n > 5) for note in found.notes)
        assert all(np.isfinite(scores).all() and (np.diff(scores) <= 0).all() for scores in found.scores)
        assert all(((like >= 0) & (like <= 1)).all() for like in found.probabilities)


def test_what_was_seen_is_left_out_unless_asked_for(recommender):
    seen = recommender.knowledge.item_ids[recommender.lists.rated.of(0)[0]]
    user = recommender.knowledge.user_ids[:1]
    assert not set(recommender.recommend(user, ITEMS).items[0]) & set(seen)
    assert set(seen) <= set(recommender.recommend(user, ITEMS, exclude_seen=False).items[0])


def test_saving_and_loading_changes_no_list(recommender, tmp_path):
    recommender.save(tmp_path)
    loaded, users = load_recommender(tmp_path), recommender.knowledge.user_ids
    for options in ({}, {"diversity": 0.5}, {"candidates": recommender.knowledge.item_ids[:5]}):
        one, other = (model.recommend(users, 4, **options) for model in (recommender, loaded))
        assert [items.tolist() for items in one.items] == [items.tolist() for items in other.items]
        assert [scores.tolist() for scores in one.scores] == [scores.tolist() for scores in other.scores]


def test_an_explanation_names_items_of_the_history_and_its_shares_add_up(recommender):
    user = recommender.knowledge.user_ids[0]
    why = recommender.explain(user, left_out(int(user[1:])))
    rated = recommender.knowledge.item_ids[recommender.lists.rated.of(0)[0]]
    assert set(why.items) <= set(rated)
    assert why.shares.sum() == pytest.approx(1)
    assert (np.diff(why.shares) <= 0).all()
    assert 1 <= why.rating <= 5
    assert 0 <= why.like_probability <= 1


def test_similar_items_are_of_the_same_colour(recommender):
    found = recommender.similar_items(ids("i00", "i03"), 4)
    assert [len(one.items) for one in found] == [4, 4]
    assert {int(item[1:]) % 2 for item in found[0].items} == {0}
    assert {int(item[1:]) % 2 for item in found[1].items} == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "parameter 'n': a whole number of items, at least 1, is needed, got 0"),
        ({"n": 2.5}, "parameter 'n': a whole number of items, at least 1, is needed, got 2.5"),
        ({"diversity": 2}, "parameter 'diversity': a number from 0 to 1 is needed, got 2"),
        ({"history": []}, "parameter 'history': one history, or None, a user is needed, got 0 for 1 users"),
        ({"history": [History(ids("i00", "i00"))]}, "history of user 'u00': item 'i00' is there twice"),
        ({"history": [History(ids("i00"), np.array([9.0]))]}, "expected a rating from 1 to 5, the scale learnt from"),
        ({"history": [History(ids("i00"), np.array([]))]}, "one rating an item is needed, got 0 for 1 items"),
        ({"candidates": ids("x", "y")}, "none of these 2 was learnt from: 'x', 'y'"),
        ({"candidates": ids()}, "none of these 0 was learnt from: there is none"),
    ],
)
def test_what_no_list_answers_is_refused(bias, options, message):
    with pytest.raises(InputError) as caught:
        bias.recommend(ids("u00"), **options)
    assert message in str(caught.value)


def test_unknown_ids_are_counted(bias):
    known = bias.knowledge.item_ids[:2]
    found = bias.recommend(
        ids("new"), history=[History(ids("i00", "?"))], candidates=ids(*known, "?"), exclude=ids("??")
    )
    assert found.ignored == 3


def test_an_empty_history_or_one_of_unknown_items_is_answered_by_what_is_popular(bias):
    found = bias.recommend(ids("a", "b"), history=[History(ids()), History(ids("?"))])
    assert found.policy == ["popular", "popular"]
    assert [items.tolist() for items in found.items] == [bias.recommend(ids("c")).items[0].tolist()] * 2


def test_who_has_seen_everything_gets_an_empty_list_and_the_reason(bias):
    found = bias.recommend(ids("new"), history=[History(bias.knowledge.item_ids)])
    assert found.items[0].tolist() == []
    assert found.notes == ["none is left of the items asked for that the user has not rated"]


def test_a_catalogue_of_one_item_gives_a_list_of_one():
    rows = Interactions(np.arange(3, dtype=np.int32), np.zeros(3, np.int32), np.array([1.0, 3, 5]))
    biases = Biases(3.0, np.zeros(3), np.zeros(1))
    scale, like = (1.0, 5.0), LikeCalibration(0.0, 0.0)
    knowledge = Knowledge(ids("a", "b", "c"), ids("only"), sorted_pairs(rows), scale, 4.0, biases, like)
    one = family_module("bias").BiasRecommender(knowledge, family_module("bias").Config())
    regression, matrix = Regression("ratings", 1.0, 0.0), csr_matrix(np.ones((3, 1)))
    weights = learn_item_to_item(count_together(matrix), regression)
    one.lists = ListModel(weights, regression, 0.5, rated_items(rows, 3), np.ones(1))
    assert one.recommend(ids("new"), 5).items[0].tolist() == ["only"]
    assert one.recommend(ids("a"), 5).items[0].tolist() == []
    assert one.similar_items(ids("only"))[0].items.tolist() == []


def test_a_version_without_lists_says_how_to_get_them(tmp_path):
    without = fitted("bias", tmp_path, lists=False)
    with pytest.raises(InputError, match="train it again with the same data and lists=true"):
        without.recommend(ids("u00"))


def test_the_whole_list_of_equal_users_is_in_the_order_of_the_ids(bias):
    """Two items that are alike in everything come in codepoint order."""
    first = bias.recommend(ids("new"), ITEMS)
    again = bias.recommend(ids("another"), ITEMS)
    assert first.items[0].tolist() == again.items[0].tolist()


def test_full_diversity_avoids_what_is_alike(bias):
    history = [History(ids("i00", "i02", "i01"))]
    colours = [int(item[1:]) % 2 for item in bias.recommend(ids("n"), 2, history=history, diversity=1.0).items[0]]
    assert sorted(colours) == [0, 1]
