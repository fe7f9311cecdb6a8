import math
from types import SimpleNamespace

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.matrix_factorization.family import Config, FactorRecommender
from recsys.serving import engine as engine_module
from recsys.serving.compact import make_form, promised_auc
from recsys.serving.engine import NO_HISTORY, Engine, History
from recsys.serving.form import open_form
from recsys.serving.http import ProblemError
from recsys.serving.ids import IdTable, pack_ids
from recsys.serving.lists import lister
from tests.support.serving_site import form, two_tastes


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine.of_form(open_form(form(tmp_path_factory.mktemp("form") / "one"), verify=True))


def by_hand(engine, user, history, n):
    """The n best by scoring all."""
    carried = engine.carry(history)
    likes = engine.predict_known(user, np.arange(len(engine.items)))[1]
    scores = np.where(carried > 0, carried * likes**0.5, 0)
    scores[history.items] = 0
    order = np.lexsort((np.arange(len(scores)), -scores))
    return [int(item) for item in order[:n] if scores[item] > 0]


def test_a_list_is_what_scoring_all_items_finds(engine):
    for user in range(len(engine.users)):
        history = engine.history(user)
        expected = by_hand(engine, user, history, 4)
        assert engine.recommend(user, history, 4).items[: len(expected)].tolist() == expected


def test_a_list_has_as_many_as_are_left(engine):
    history = engine.history(0)
    left = len(engine.items) - len(history.items)
    listed = engine.recommend(0, history, 1000)
    assert len(set(listed.items.tolist())) == left
    assert not set(listed.items.tolist()) & set(history.items.tolist())
    everything = engine.history(0, dict.fromkeys(range(len(engine.items)), 4.0))
    assert len(engine.recommend(0, everything, 10).items) == 0


def test_a_rating_that_was_given_counts_in_place_of_the_one_learnt_from(engine):
    learnt = engine.history(0)
    given = {int(learnt.items[-1]): 1.5, int(learnt.items[0]): 2.5}
    history = engine.history(0, given)
    assert history.items.tolist() == learnt.items.tolist()
    assert [history.ratings[0], history.ratings[-1]] == [2.5, 1.5]


def test_without_a_history_what_is_popular_is_listed(engine):
    listed = engine.recommend(-1, NO_HISTORY, 5)
    assert listed.policy == "popular"
    assert listed.items.tolist() == engine.popular(5)[0].tolist()


def test_reasons_are_shares_of_what_carried_an_item(engine):
    history = engine.history(2)
    item = int(engine.recommend(2, history, 1).items[0])
    found = engine.reasons(history, item, most=100)
    assert sum(share for _, share in found) == pytest.approx(1)
    assert {at for at, _ in found} <= set(history.items.tolist())


def test_a_new_user_s_ratings_lead_towards_what_they_liked(engine):
    even = [code for code in range(len(engine.items)) if int(engine.items[code][1:]) % 2 == 0]
    liked = History(np.array(even[:4], np.int32), np.full(4, 5.0, np.float32))
    rest = np.array([code for code in range(len(engine.items)) if code not in even[:4]], np.int32)
    likes = engine.predict(-1, liked, rest)[1]
    is_even = np.isin(rest, even)
    assert likes[is_even].min() > likes[~is_even].max()


def four_factors():
    random = np.random.default_rng(1)
    tastes = two_tastes()
    arrays = {
        "user_factors": random.normal(size=(24, 4)).astype(np.float32),
        "item_factors": random.normal(size=(24, 4)).astype(np.float32),
        "user_bias": random.normal(size=24),
        "item_bias": random.normal(size=24),
    }
    recommender = FactorRecommender(tastes.knowledge, Config(), arrays, 3.0, 1, tastes.knowledge.calibration)
    recommender.lists = tastes.lists
    return recommender


@pytest.mark.parametrize("rank", [4, 8])
def test_a_form_of_full_rank_loses_nothing(tmp_path, rank):
    loss = make_form(four_factors(), tmp_path / "form", {"version": "1"}, rank=rank).about["loss"]
    assert loss["rating_rmse"] < 0.005  # factors of users are kept as float16
    assert loss["top_10_overlap"] > 0.99
    assert loss["auc"] == pytest.approx(0, abs=1e-4)
    assert loss["ndcg_at_10"] == pytest.approx(0, abs=0.01)


def test_a_form_of_lower_rank_says_what_it_loses(tmp_path):
    losses = [
        make_form(four_factors(), tmp_path / str(rank), {"version": "1"}, rank=rank, max_loss=1).about["loss"]
        for rank in (3, 1)
    ]
    assert 1e-4 < losses[0]["auc"] < losses[1]["auc"] < 0.5
    assert 0 < losses[0]["ndcg_at_10"] < losses[1]["ndcg_at_10"] < 1


def test_the_auc_that_probabilities_promise_is_that_of_all_pairs():
    likes = np.array([0.9, 0.1])
    assert promised_auc(likes, np.array([2.0, 1.0])) == pytest.approx(0.9)
    assert promised_auc(likes, np.array([1.0, 2.0])) == pytest.approx(0.1)
    assert promised_auc(likes, np.array([1.0, 1.0])) == pytest.approx(0.5)


def test_a_form_that_loses_too_much_is_refused(tmp_path):
    with pytest.raises(InputError, match="more than max_loss"):
        make_form(two_tastes(), tmp_path / "form", {"version": "1"}, max_loss=1e-9)
    assert not (tmp_path / "form").exists()


@pytest.mark.parametrize(
    ("share", "remedy"), [(0.0, "; pass a higher rank or max_loss$"), (0.3, r"; 0\.\d+ of it at any rank, as ")]
)
def test_a_higher_rank_is_proposed_only_where_it_can_help(tmp_path, monkeypatch, share, remedy):
    recommender = four_factors()
    real = recommender.score

    def score(users, items):
        """Probabilities of a line of the ratings, and for every other user higher ones."""
        found = real(users, items)
        odds = found.rating - 3
        return found._replace(like_probability=(1 - share * (users % 2)) / (1 + np.exp(-odds)))

    monkeypatch.setattr(recommender, "rating_factors", lambda: None)
    monkeypatch.setattr(recommender, "score", score)
    with pytest.raises(InputError, match=f"at rank 1 changes .* more than max_loss=0.02{remedy}"):
        make_form(recommender, tmp_path / "form", {"version": "1"}, rank=1)


def test_a_version_without_lists_scores_and_says_how_to_get_lists(tmp_path):
    recommender = two_tastes()
    recommender.lists = None
    found = open_form(make_form(recommender, tmp_path / "form", {"version": "7"}, max_loss=1).folder)
    engine = Engine.of_form(found)
    assert not engine.differs_from(found.about["probe"])
    assert engine.popular(3)[0].tolist() == Engine.of_form(found).arrays.most_popular[:3].tolist()
    user, item = recommender.knowledge.user_ids[0], recommender.knowledge.item_ids[:1]
    rating = engine.predict(engine.users.find(user), NO_HISTORY, np.zeros(1, np.int32))[0]
    assert rating == pytest.approx(recommender.predict(np.array([user], object), item).rating, abs=0.5)
    serving = SimpleNamespace(current=lambda: SimpleNamespace(engine=engine, version="7"))
    with pytest.raises(
        ProblemError, match=r"version 7 cannot make lists, .* with the same data and lists=true"
    ) as said:
        lister(serving)
    assert said.value.status == 409


def test_ids_are_found_and_named():
    names = sorted(["", "a", "ab", "b", "é", "日本", "\U0001f600", "z" * 500])
    table = IdTable(*pack_ids(names))
    assert [table.find(name) for name in names] == list(range(len(names)))
    assert [table[code] for code in range(len(names))] == names
    assert [table.find(name) for name in ("aa", "zz", "\ud800", "~")] == [-1] * 4
    assert IdTable(*pack_ids([])).find("a") == -1


def test_probabilities_of_the_probit_link_are_interpolated_between_points():
    points = np.linspace(-6, 6, 12 * 512 + 1)
    x = np.concatenate(
        [np.random.default_rng(0).normal(0, 3, 5000), points, np.nextafter(points, -9), [-np.inf, np.inf]]
    )
    expected = np.interp(x, points, [math.erfc(-at / math.sqrt(2)) / 2 for at in points])
    assert np.array_equal(engine_module._normal_cdf(x), expected)
