"""Where what comes next depends on what came last: a history whose old items count less."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.models.base.item_to_item import Regression
from recsys.models.base.lists import History, RatedItems
from recsys.models.base.loading import load_recommender
from recsys.serving.compact import make_form
from recsys.serving.engine import Engine
from recsys.testing.datasets import prepared
from recsys.training.histories import count_newer
from recsys.training.trainer import train

HOUR, DAY = 3_600, 86_400
SIZE = 6  # items of a group


def walks(users: int, seed: int = 0):
    """Users who come four times, and each time take all but one item of a group."""
    rng = np.random.default_rng(seed)
    for user in range(users):
        for visit, group in enumerate(rng.permutation(8)[:4]):
            for place, item in enumerate(rng.permutation(SIZE)[:-1]):
                yield f"u{user:03}", f"i{group}{item}", int(rng.integers(3, 6)), user + visit * 30 * DAY + place * HOUR


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("walks"), walks(150), test_size=0.1, validation_size=0.2)


@pytest.fixture(scope="module")
def following(walked):
    """Its validation rows are each user's newest."""
    rows = walked.train.joined(walked.validation).joined(walked.test)
    order = np.lexsort((rows.timestamps, rows.users))
    rows = rows[order]
    last = np.r_[np.diff(rows.users) > 0, True]
    held, none = rows[np.flatnonzero(last)], rows[:0]
    return walked.holding(train=rows[np.flatnonzero(~last)], validation=held, test=none)


def ease(dataset, **settings):
    return train("ease", dataset, family_module("ease").Config(**settings), seed=0)


@pytest.fixture(scope="module")
def aged(following):
    return ease(following).final


def ids(*names):
    return np.array(names, object)


def test_what_an_item_counts_halves_with_each_half_life_of_newer_ratings():
    newer, ratings = np.array([0, 2, 4, 1000]), np.array([5.0, 5, 2.5, 5])
    found = Regression("ratings", 1.0, 0.0, half_life=2.0).in_history(ratings, newer, (1, 5), 4)
    assert found[:3].tolist() == [1, 0.5, 0.125]
    assert 0 < found[3] < 1e-5  # still more than an item that was not taken
    assert Regression("ratings", 1.0, 0.0).in_history(ratings, newer, (1, 5), 4).tolist() == [1, 1, 0.5, 1]


def test_the_newer_rows_of_a_user_are_counted():
    starts, times = np.array([0, 4, 4, 6]), np.array([30.0, 10, np.nan, 30, 7, 5])
    assert count_newer(starts, times).tolist() == [1, 2, 3, 0, 0, 1]  # of one moment, that of higher place is newer


def test_users_who_come_later_replace_what_is_known_of_their_id():
    known = RatedItems(np.array([0, 2, 3]), np.array([0, 1, 2]), np.ones(3), np.array([1, 0, 0], np.int32))
    rows = Interactions(np.array([2, 1, 2]), np.array([5, 3, 4]), np.ones(3))
    grown = known.with_users(rows, 3)
    assert [grown.newer_of(user).tolist() for user in range(3)] == [[1, 0], [0], [0, 1]]
    assert [grown.of(user)[0].tolist() for user in range(3)] == [[0, 1], [3], [4, 5]]
    assert grown.newer_of(-1).tolist() == []


def test_age_counts_where_validation_is_what_comes_next(walked, following, aged):
    assert aged.lists.regression.half_life is not None
    assert aged.choices()["half_life"] == aged.lists.regression.half_life
    drawn = ease(walked).final
    assert drawn.lists.regression.half_life is None
    assert drawn.lists.rated.newer is None  # what does not count is not kept


def test_what_came_last_leads_the_list(aged):
    first, second = (ids(*(f"i{group}{item}" for item in range(SIZE - 1))) for group in (0, 1))
    asked = [History(np.r_[first, second]), History(np.r_[second, first])]
    found = aged.recommend(ids("new", "new"), 2, history=asked)
    assert [items.tolist() for items in found.items] == [["i15", "i05"], ["i05", "i15"]]
    why = aged.explain("new", "i15", asked[0])
    assert why.items[0] in second
    assert why.shares[np.isin(why.items, first)].sum() < 0.5


def of_user(recommender, dataset, user):
    """A user's rows learnt from, the oldest first."""
    rows = dataset.train.joined(dataset.validation)
    mine = rows[np.flatnonzero(dataset.user_ids[rows.users] == user)]
    mine = mine[np.argsort(mine.timestamps)]
    return dataset.item_ids[mine.items], mine.ratings


def test_a_history_says_what_learnt_and_folded_in_rows_say(aged, following):
    user = aged.knowledge.user_ids[3]
    items, ratings = of_user(aged, following, user)
    given = History(items, ratings)
    learnt, told, new = (
        aged.recommend(ids(user), 8),
        aged.recommend(ids(user), 8, history=[given]),
        aged.recommend(ids("new"), 8, history=[given]),
    )
    grown = aged.fold_in(ids(*["new"] * len(items)), items, ratings).recommender
    folded = grown.recommend(ids("new"), 8)
    for one in (told, new, folded):
        assert one.items[0].tolist() == learnt.items[0].tolist()
        assert one.scores[0] == pytest.approx(learnt.scores[0])
    assert new.probabilities[0] == pytest.approx(folded.probabilities[0])
    assert grown.recommend(ids(user), 8).scores[0] == pytest.approx(learnt.scores[0])


def test_saving_keeps_the_age(aged, tmp_path):
    aged.save(tmp_path)
    loaded, users = load_recommender(tmp_path), aged.knowledge.user_ids[:9]
    assert loaded.lists.regression == aged.lists.regression
    one, other = aged.recommend(users, 5), loaded.recommend(users, 5)
    assert [scores.tolist() for scores in one.scores] == [scores.tolist() for scores in other.scores]


def test_a_port_answers_as_the_version_with_feedback_as_the_newest(aged, following, tmp_path):
    engine = Engine.of_form(make_form(aged, tmp_path / "form", {"version": "1", "model": "recsys"}, max_loss=1e-6))
    for user in aged.knowledge.user_ids[:5]:
        items, ratings = of_user(aged, following, user)
        again, other = items[2], next(item for item in aged.knowledge.item_ids if item not in items)
        for given in ([], [other], [again], [other, again]):
            kept = ~np.isin(items, given)
            history = History(np.r_[items[kept], ids(*given)], np.r_[ratings[kept], [4.0] * len(given)])
            expected = aged.recommend(ids(user), 6, history=[history])
            code = engine.users.find(user)
            listed = engine.recommend(code, engine.history(code, {engine.items.find(one): 4.0 for one in given}), 6)
            assert [engine.items[at] for at in listed.items.tolist()] == expected.items[0].tolist()
            assert listed.scores == pytest.approx(expected.scores[0], rel=1e-4)
    session = engine.recommend(-1, engine.history(-1, dict.fromkeys([engine.items.find(one) for one in items], 4.0)), 6)
    assert [engine.items[at] for at in session.items.tolist()] == (
        aged.recommend(ids("new"), 6, history=[History(items, np.full(len(items), 4.0))]).items[0].tolist()
    )


def test_a_half_life_that_is_given_is_taken_and_needs_timestamps(walked, tmp_path):
    assert ease(walked, half_life=7).final.lists.regression.half_life == 7
    untimed = prepared(tmp_path, [row[:3] for row in walks(30)])
    with pytest.raises(InputError, match="parameter 'half_life': ratings with timestamps are needed"):
        ease(untimed, half_life=7)
