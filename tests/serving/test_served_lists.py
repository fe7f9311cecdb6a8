"""A port answers the lists that `recommend` gives, from the version's own weights."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys.data import builder
from recsys.data.preparation import Preparation
from recsys.models.base.family import family_module
from recsys.models.base.lists import History
from recsys.serving import compact
from recsys.serving.compact import make_form
from recsys.serving.engine import NO_HISTORY, Engine
from recsys.serving.follower import Champion, Follower
from recsys.serving.form import FORMAT, open_form
from recsys.serving.pyfunc_model import RecommenderModel
from recsys.testing.datasets import prepared, rated
from recsys.training.trainer import train

SMALL = {"bias": {}, "bayesian_mf": {"embedding_size": 4}, "ease": {}, "neighbourhood": {}}


@pytest.fixture(scope="module", params=SMALL)
def version(request, tmp_path_factory):
    """A version with an exponent, so that its like probabilities count, and the engine of its served form."""
    folder = tmp_path_factory.mktemp(request.param)
    dataset = prepared(folder, rated(40, 30, 1, 5, step=0.5, seed=3))
    config = family_module(request.param).Config(**SMALL[request.param])
    recommender = train(request.param, dataset, config, seed=1).final
    object.__setattr__(recommender.lists, "exponent", 1.0)
    form = open_form(_form(recommender, folder / "form"))
    return recommender, Engine.of_form(form), form.about


def _form(recommender, folder):
    return make_form(recommender, folder, {"version": "1", "model": "recsys"}, rank=64, max_loss=1).folder


def assert_same(version, user, listed, found):
    """Each place holds what the version has there, or what it scores the same within what the form loses."""
    recommender, engine, about = version
    loss = 16 * about["loss"]["probability_rmse"] + 1e-5  # of any of 200 pairs, where that is the root mean square
    items = [engine.items[code] for code in listed.items.tolist()]
    assert len(items) == len(found.items[0])
    assert listed.policy == found.policy[0]
    users = np.full(len(items), user, object)
    likes = recommender.predict(users, np.array(items, object)).like_probability
    assert listed.probabilities == pytest.approx(likes, abs=loss)
    takes = listed.scores / np.maximum(listed.probabilities, 1e-12)
    assert listed.scores == pytest.approx(found.scores[0], abs=loss * takes.max(initial=0) + 1e-6)
    if about["loss"]["probability_rmse"] < 1e-4:
        assert items == found.items[0].tolist()


def test_the_served_list_is_that_of_the_version(version):
    recommender, engine, _ = version
    for user in recommender.knowledge.user_ids:
        code = engine.users.find(user)
        found = recommender.recommend(np.array([user], object), 5)
        assert_same(version, user, engine.recommend(code, engine.history(code), 5), found)


def test_a_rating_in_feedback_changes_the_list_as_a_history_with_it_does(version):
    recommender, engine, _ = version
    changed = 0
    for user in recommender.knowledge.user_ids[:10]:
        code = engine.users.find(user)
        before = engine.history(code)
        new = int(engine.recommend(code, before, 1).items[0])
        after = engine.history(code, {new: 5.0})
        listed = engine.recommend(code, after, 5)
        items = np.array([engine.items[item] for item in after.items.tolist()], object)
        history = [History(items, after.ratings.astype(float))]
        assert_same(version, user, listed, recommender.recommend(np.array([user], object), 5, history=history))
        assert new not in listed.items
        changed += listed.items[:4].tolist() != engine.recommend(code, before, 5).items[1:].tolist()
    assert changed > 0


def test_candidates_and_exclusions_are_those_of_the_version(version):
    recommender, engine, _ = version
    user, some = recommender.knowledge.user_ids[0], recommender.knowledge.item_ids[:8]
    code, codes = engine.users.find(user), np.array([engine.items.find(item) for item in some], np.int32)
    listed = engine.recommend(code, engine.history(code), 9, candidates=codes, exclude=codes[:2], exclude_seen=False)
    options = {"candidates": some, "exclude": some[:2], "exclude_seen": False}
    assert_same(version, user, listed, recommender.recommend(np.array([user], object), 9, **options))


def test_reasons_and_similar_items_are_those_of_the_version(version):
    recommender, engine, _ = version
    user = recommender.knowledge.user_ids[1]
    code = engine.users.find(user)
    item = int(engine.recommend(code, engine.history(code), 1).items[0])
    why = recommender.explain(user, engine.items[item])
    found = engine.reasons(engine.history(code), item, most=3)
    assert [engine.items[at] for at, _ in found] == why.items[:3].tolist()
    assert [share for _, share in found] == pytest.approx(why.shares[:3].tolist())
    near, weights = engine.similar(item, 4)
    same = recommender.similar_items(np.array([engine.items[item]], object), 4)[0]
    assert [engine.items[at] for at in near.tolist()] == same.items.tolist()
    assert weights == pytest.approx(same.weights)


def test_a_form_of_an_earlier_release_is_made_again(version, tmp_path):
    recommender = version[0]
    made = []

    def make(champion, place):
        made.append(champion.version)
        _form(recommender, place)

    champion = Champion("1", "1-a")
    Follower(tmp_path, lambda: champion, make).look()
    description = tmp_path / "forms" / "1-a" / "form.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "format": 1}))
    Follower(tmp_path, lambda: champion, make).look()
    assert made == ["1", "1"]
    assert json.loads(description.read_text())["format"] == FORMAT
    assert json.loads((tmp_path / "current.json").read_text())["refused"] == {}


@pytest.fixture(scope="module", params=["ease", "neighbourhood"])
def taken(request, tmp_path_factory):
    """A version of data without ratings, and the engine of its form."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = [row[:2] for row in rated(40, 30, 1, 5, seed=3)]
    source = folder / "orders.csv"
    source.write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in rows))
    dataset = builder.prepare(source, Preparation(ratings=str(source)), folder / "prepared")
    assert dataset.implicit
    recommender = train(request.param, dataset, family_module(request.param).Config(), seed=1).final
    form = make_form(recommender, folder / "form", {"version": "1", "model": "recsys"}, max_loss=1e-6)
    return recommender, Engine.of_form(form)


def test_without_ratings_a_port_says_what_the_version_says_of_any_user(taken):
    recommender, engine = taken
    items = np.append(recommender.knowledge.item_ids, "strange")
    codes = np.array([engine.items.find(item) for item in items], np.int32)
    for user in [*recommender.knowledge.user_ids[:5], "nobody"]:
        said = recommender.predict(np.full(len(items), user, object), items)
        rating, like = engine.predict(engine.users.find(user), NO_HISTORY, codes)
        assert like == pytest.approx(said.like_probability, rel=1e-4)
        assert rating == pytest.approx(said.rating, rel=1e-4)


def test_without_ratings_a_new_customer_is_answered_by_what_they_took(taken):
    recommender, engine = taken
    bought = recommender.knowledge.item_ids[[2, 5, 11]]
    events = {engine.items.find(item): float("nan") for item in bought}
    listed = engine.recommend(-1, engine.history(-1, events), 5)
    found = recommender.recommend(np.array(["new"], object), 5, history=[History(bought)])
    assert [engine.items[code] for code in listed.items.tolist()] == found.items[0].tolist()
    assert listed.policy == found.policy[0] == "history"
    assert listed.probabilities == pytest.approx(found.probabilities[0], rel=1e-4)


def test_the_form_of_a_large_catalogue_needs_no_table_of_all_pairs(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "_GRID", 1)
    made = make_form(taken[0], tmp_path / "form", {"version": "1"}, max_loss=1e-6)
    assert made.about["loss"]["top_10_overlap"] == 1
    assert made.about["rank"] == 0


def test_the_mlflow_model_answers_by_lists_for_families_of_lists(taken):
    model = RecommenderModel()
    model.recommender, model.names = taken[0], {}
    user = taken[0].knowledge.user_ids[0]
    answer = model.predict(None, pd.DataFrame({"user_id": [user, "nobody"]}), {"n": 4})
    found = taken[0].recommend(np.array([user, "nobody"], object), 4)
    assert answer["items"].tolist() == [items.tolist() for items in found.items]
    assert answer["policy"].tolist() == ["personal", "popular"]
    pairs = model.predict(None, pd.DataFrame({"user_id": [user], "item_id": answer["items"][0][:1]}))
    assert pairs["like_probability"][0] == pytest.approx(answer["like_probabilities"][0][0])
