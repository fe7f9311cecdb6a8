"""Who rated what, and the sessions in which they did."""

import numpy as np
import pytest

from recsys.models.base.item_to_item import CoCounts, Regression
from recsys.models.base.ranking import best_items, best_of_rows
from recsys.models.bias import Config
from recsys.testing.datasets import prepared
from recsys.training import histories as collecting
from recsys.training import lists
from recsys.training.histories import collect_histories, cut_sessions
from recsys.training.trainer import train

DAY = 86_400


def visits(users: int, seed: int):
    """Users who come four times and each time take six items that belong together, of 36; and rate them anyhow."""
    rng = np.random.default_rng(seed)
    for user in range(users):
        for visit, group in enumerate(rng.permutation(6)[:4]):
            for place, item in enumerate(rng.permutation(6)):
                moment = user + visit * 30 * DAY + place * 60
                yield f"u{user:03}", f"i{group}{item}", int(rng.integers(1, 6)), moment


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("visits"), visits(120, 0), test_size=0.2, validation_size=0.2)


@pytest.fixture(scope="module")
def untimed(tmp_path_factory):
    rows = [row[:3] for row in visits(120, 0)]
    return prepared(tmp_path_factory.mktemp("no times"), rows, test_size=0.2, validation_size=0.2)


def fitted(dataset, **arguments):
    return train("bias", dataset, Config(), seed=0, **arguments)


@pytest.mark.parametrize("rows_at_a_time", [1, 7, 1 << 22])
def test_rows_are_sorted_by_user_and_item_with_the_session_of_each(timed, monkeypatch, rows_at_a_time):
    monkeypatch.setattr(collecting, "_SORTED_AT_A_TIME", rows_at_a_time)
    recommender = fitted(timed, lists=False).final
    found = collect_histories(recommender, timed, ("train", "validation"))
    rows = timed.train.joined(timed.validation)
    for user in (0, 17, 119):
        code = recommender.knowledge.user_codes(timed.user_ids[user : user + 1])[0]
        mine = rows[np.flatnonzero(rows.users == user)]
        order = np.argsort(timed.item_ids[mine.items])
        items, ratings = found.rated.of(int(code))
        assert recommender.knowledge.item_ids[items].tolist() == timed.item_ids[mine.items[order]].tolist()
        assert ratings.tolist() == mine.ratings[order].tolist()
        part = slice(*found.rated.starts[code : code + 2])
        visit = (mine.timestamps[order] - user) // (30 * DAY)
        same = found.sessions[part][:, None] == found.sessions[part]
        # Three of four pauses lie within visits, so that what is together is a visit or a part of one.
        assert not (same & (visit[:, None] != visit)).any()
    assert len(np.unique(found.sessions)) == found.sessions.max() + 1 < len(rows)


def test_the_longest_quarter_of_the_pauses_ends_a_session():
    starts, times = np.array([0, 5, 5, 6, 8]), np.array([30.0, 10, 0, 20, 1030, 7, 5, 4])
    # Pauses of the first user: 10, 10, 10 and 1,000; of the last one 1. The order of the rows is kept.
    assert cut_sessions(starts, times).tolist() == [0, 0, 0, 0, 1, 2, 3, 3]


def test_where_nobody_rated_twice_there_are_no_sessions():
    assert cut_sessions(np.array([0, 1, 2]), np.array([5.0, 1])) is None


def test_a_rating_of_unknown_time_is_a_session_of_its_own():
    found = cut_sessions(np.array([0, 4]), np.array([1.0, np.nan, 2, 3]))
    assert found[0] == found[2] == found[3] != found[1]


def test_items_of_one_session_count_more_together(timed):
    """The Gram matrix is X'X and as much of S'S as was asked for, worked out pair by pair."""
    recommender = fitted(timed, lists=False).final
    found = collect_histories(recommender, timed, ("train",))
    regression = Regression("likes", 1.0, 0.0, session_weight=0.5)
    counts = lists._count(found, regression, recommender)
    assert isinstance(counts, CoCounts)
    expected = np.zeros_like(counts.gram)
    rated = found.rated
    for user in range(len(rated.starts) - 1):
        part = range(rated.starts[user], rated.starts[user + 1])
        for one in part:
            for other in part:
                if rated.ratings[one] >= 4 and rated.ratings[other] >= 4:
                    together = 1 + 0.5 * (found.sessions[one] == found.sessions[other])
                    expected[rated.items[one], rated.items[other]] += together
    np.testing.assert_allclose(counts.gram, expected, rtol=1e-5)


def test_sessions_count_where_validation_says_so_and_are_unknown_without_times(timed, untimed):
    with_times, without = fitted(timed), fitted(untimed)
    assert with_times.chosen.lists.regression.session_weight > 0
    assert with_times.final.lists.regression == with_times.chosen.lists.regression
    assert without.chosen.lists.regression.session_weight == 0


def test_who_is_chosen_by_is_measured_as_lists_are_made(timed):
    """The nDCG by which training chooses is that of the lists which the same version makes."""
    chosen = fitted(timed, refit=False).chosen
    validation = lists._validation_of(chosen, timed, lists.MOST_USERS)
    (found,) = lists._ndcgs(chosen, chosen.lists, validation, [chosen.lists.exponent])
    made = chosen.recommend(chosen.knowledge.user_ids[validation.users], lists.TOP)
    for row, items in enumerate(made.items):
        codes = chosen.knowledge.item_codes(items)
        liked = set(validation.items[validation.rows == row].tolist())
        gains = [1 / np.log2(rank + 2) for rank, code in enumerate(codes) if code in liked]
        best = [1 / np.log2(rank + 2) for rank in range(min(lists.TOP, validation.counts[row]))]
        assert found[row] == pytest.approx(sum(gains) / sum(best))


def test_the_best_of_many_rows_are_those_of_each():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 12)).astype(float)  # many ties
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    for n in (1, 3, 12, 20):
        found = best_of_rows(scores, n)
        for row, mine in enumerate(scores):
            allowed = np.isfinite(mine)
            expected = np.sort(best_items(mine, n, allowed))
            assert [code for code in found[row] if allowed[code]] == expected.tolist()


@pytest.mark.parametrize("dense_items", [8_000, 8])
def test_what_is_chosen_does_not_depend_on_how_many_are_tried_at_once(timed, monkeypatch, dense_items):
    """Nor do the weights, on a catalogue that is held whole and on one that counts as too large for that."""
    monkeypatch.setattr(lists, "DENSE_ITEMS", dense_items)
    tried, learn = [], lists._list_model
    monkeypatch.setattr(lists, "_list_model", lambda *given: tried.append(given[2]) or learn(*given))
    found = []
    for at_once in (1, 2, 4):
        tried.clear()
        lists._shared.cache_clear()
        monkeypatch.setattr(lists, "_AT_ONCE", at_once)
        model = fitted(timed).chosen.lists
        weights = model.item_to_item
        found.append(
            (model.regression, weights.neighbours.tolist(), weights.weights.tolist(), sorted(map(repr, tried)))
        )
    assert found[0] == found[1] == found[2]
    assert len(set(found[0][3])) > 5
