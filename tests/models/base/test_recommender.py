import json

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.loading import load_recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bias import BiasRecommender, Config
from tests.support.builders import TableRecommender

KNOWLEDGE = Knowledge(
    user_ids=np.array(["007", "7", "bea"], object),
    item_ids=np.array(["p", "q"], object),
    seen=np.array([[0, 1], [2, 0], [2, 1]], np.int32),
    scale=(1.0, 5.0),
    like_threshold=4.0,
    biases=Biases(3.0, np.array([0.5, -0.5, 1.0]), np.array([1.0, -1.0])),
    calibration=LikeCalibration(2.0, -8.0),
)
TABLE = TableRecommender(KNOWLEDGE, np.array([[9, 2], [3, -4], [1, 5]]), np.array([[0.9, 0.2], [0.3, 0], [0.1, 1]]))


def text(*ids):
    return np.array(ids, object)


def test_ids_are_text_and_unknown_ones_have_the_code_minus_1():
    assert KNOWLEDGE.user_codes(text("7", "007", "07", "bea", "")).tolist() == [1, 0, -1, 2, -1]
    assert KNOWLEDGE.item_codes(text("q", "bea")).tolist() == [1, -1]


@pytest.mark.parametrize(("user", "items"), [(0, [1]), (1, []), (2, [0, 1])])
def test_seen_items_are_a_user_s_own(user, items):
    assert KNOWLEDGE.seen_items(user).tolist() == items


def test_known_pairs_are_the_family_s_and_clipped_to_the_scale():
    rating, like = TABLE.predict(text("007", "7", "bea"), text("p", "q", "q"))
    assert rating.tolist() == [5, 1, 5]
    assert like.tolist() == [0.9, 0, 1]


def test_unknown_ids_fall_back_on_the_biases_in_place():
    rating, like = TABLE.predict(text("bea", "bea", "?", "?", "007"), text("q", "?", "p", "?", "q"))
    assert rating.tolist() == [5, 4, 4, 3, 2]
    expected = [1, 1 / (1 + np.exp(0)), 1 / (1 + np.exp(0)), 1 / (1 + np.exp(2)), 0.2]
    assert like == pytest.approx(expected)


def test_only_unknown_pairs_never_ask_the_family():
    class Refusing(TableRecommender):
        def _score_known(self, users, items):
            assert len(users) == 0
            return super()._score_known(users, items)

    refusing = Refusing(KNOWLEDGE, *TABLE.tables)
    assert refusing.predict(text("?"), text("?")).rating.tolist() == [3]


@pytest.mark.parametrize("recommender", [TABLE, BiasRecommender(KNOWLEDGE, Config())])
def test_no_pair_gives_no_prediction(recommender):
    rating, like = recommender.predict(text(), text())
    assert rating.shape == like.shape == (0,)


def test_knowledge_is_saved_and_loaded_whole(tmp_path):
    BiasRecommender(KNOWLEDGE, Config(damping=1.5)).save(tmp_path / "new" / "folder")
    loaded = load_recommender(tmp_path / "new" / "folder")
    found = loaded.knowledge
    assert isinstance(loaded, BiasRecommender)
    assert loaded.config == Config(damping=1.5)
    assert (found.user_ids.tolist(), found.item_ids.tolist()) == (["007", "7", "bea"], ["p", "q"])
    assert found.seen.tolist() == KNOWLEDGE.seen.tolist()
    assert (found.scale, found.like_threshold, found.calibration) == ((1, 5), 4, KNOWLEDGE.calibration)
    assert found.biases.mean == 3
    assert found.biases.user.tolist() == KNOWLEDGE.biases.user.tolist()
    assert found.biases.item.tolist() == KNOWLEDGE.biases.item.tolist()


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "no json"])
def test_what_is_no_saved_recommender_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "recommender.json").write_text(content)
    with pytest.raises(InputError, match=r"recommender\.json: a saved recommender is expected here"):
        load_recommender(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("format", 99, "format 1 can be read, got 99"), ("family", "gone", "parameter 'family': one of .*got 'gone'")],
)
def test_a_recommender_of_another_code_is_refused(tmp_path, key, value, message):
    BiasRecommender(KNOWLEDGE, Config()).save(tmp_path)
    path = tmp_path / "recommender.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=message):
        load_recommender(tmp_path)


def test_pickled_arrays_are_refused(tmp_path):
    save_arrays(tmp_path / "plain.npz", a=np.arange(3))
    assert load_arrays(tmp_path / "plain.npz")["a"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_arrays(tmp_path / "pickled.npz")
