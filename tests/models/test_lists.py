"""Lists: what is refused, ignored or empty. What every family's lists keep to is in recsys.testing.lists_contract."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base import item_to_item
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.family import family_module
from recsys.models.base.item_to_item import Regression, count_together, keep_largest, learn_item_to_item
from recsys.models.base.knowledge import Knowledge, sorted_pairs
from recsys.models.base.lists import History, ListModel, rated_items
from recsys.models.base.recommender import Recommender
from recsys.testing.datasets import prepared
from recsys.testing.lists_contract import ITEMS, checkerboard
from recsys.training.trainer import train


def ids(*names: str) -> np.ndarray:
    return np.array(names, object)


def fitted(family: str, folder: Path, **arguments) -> Recommender:
    dataset = prepared(folder, checkerboard(), test_size=0.05, validation_size=0.05)
    return train(family, dataset, family_module(family).Config(), seed=1, **arguments).final


@pytest.fixture(scope="module")
def bias(tmp_path_factory):
    return fitted("bias", tmp_path_factory.mktemp("bias"))


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
    assert found.unknown == ("?", "??")


@pytest.mark.parametrize("name", ["candidates", "exclude"])
def test_unknown_ids_are_refused_where_that_is_asked_for(bias, name):
    given = {name: ids(bias.knowledge.item_ids[0], *"abcdef")}
    with pytest.raises(InputError) as caught:
        bias.recommend(ids("u00"), unknown="refuse", **given)
    assert str(caught.value) == (
        f"parameter '{name}': items of the catalogue are needed, but 6 of these 7 were not learnt from: 'a', 'b', 'c', "
        "'d', 'e', …; leave them out, or pass unknown=ignore"
    )


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


@pytest.mark.parametrize("kept", [3, 90])
def test_weights_are_summed_alike_by_table_and_by_entry(monkeypatch, kept):
    """Few items with many weights are summed from a table; equal columns have equal sums in it, too."""
    random = np.random.default_rng(0)
    matrix = random.random((90, 90))
    matrix[:, 77] = matrix[:, 3]
    weights = keep_largest(matrix, kept)
    items = np.sort(random.permutation(90)[:40])
    values = random.random(40)
    table = weights.score(items, values)
    monkeypatch.setattr(item_to_item, "_TABLE_CELLS", 0)
    entries = keep_largest(matrix, kept).score(items, values)
    assert table == pytest.approx(entries, abs=1e-5)
    if kept == 90:
        assert table[3] == table[77]
        assert weights.score(items[:0], values[:0]).tolist() == [0] * 90


def test_full_diversity_avoids_what_is_alike(bias):
    history = [History(ids("i00", "i02", "i01"))]
    colours = [int(item[1:]) % 2 for item in bias.recommend(ids("n"), 2, history=history, diversity=1.0).items[0]]
    assert sorted(colours) == [0, 1]
