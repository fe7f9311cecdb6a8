"""Lists are measured as a server makes them, for those who like something in the rows asked about."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.evaluation import lists as measuring
from recsys.evaluation.lists import AVERAGED, MEASURES, evaluate_lists
from recsys.models.base.lists import History
from recsys.models.bias import Config
from recsys.settings import parse_settings
from recsys.testing.datasets import prepared
from recsys.training.trainer import learn_knowledge, train
from tests.support.builders import TableRecommender

USERS, ITEMS = 30, 20


def rows():
    """Two halves of users who take from two halves of the catalogue; half of what they take, they like."""
    rng = np.random.default_rng(3)
    for user in range(USERS):
        for item in range(user % 2, ITEMS, 2):
            if rng.random() < 0.8:
                yield f"u{user:02}", f"i{item:02}", int(rng.integers(1, 6))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("lists"), rows(), test_size=0.3, validation_size=0.2)


@pytest.fixture(scope="module")
def trained(dataset):
    return train("bias", dataset, parse_settings(Config, {}), seed=0)


def by_hand(recommender, dataset, histories=None):
    """nDCG at 10 of each user who likes a test item, by the definition, from the ids of the lists."""
    liked: dict[str, set[str]] = {}
    for user, item, rating in zip(dataset.test.users, dataset.test.items, dataset.test.ratings, strict=True):
        if rating >= 4:
            liked.setdefault(dataset.user_ids[user], set()).add(dataset.item_ids[item])
    found = []
    for user in sorted(liked):
        history = None if histories is None else [histories[user]]
        (items,) = recommender.recommend(np.array([user], object), 10, history=history).items
        gains = [1 / np.log2(rank + 2) for rank, item in enumerate(items) if item in liked[user]]
        best = [1 / np.log2(rank + 2) for rank in range(min(10, len(liked[user])))]
        found.append(sum(gains) / sum(best))
    return found


def test_a_version_is_measured_by_the_lists_it_makes(dataset, trained):
    found = evaluate_lists(trained.final, dataset, "test", seed=0)
    assert found.ndcg == pytest.approx(by_hand(trained.final, dataset))
    assert found.metrics["ndcg_at_10"] == pytest.approx(found.ndcg.mean())
    error = found.ndcg.std(ddof=1) / np.sqrt(len(found.ndcg))
    assert found.metrics["ndcg_at_10_error"] == found.errors["ndcg_at_10"] == pytest.approx(error)
    assert found.errors.keys() == set(AVERAGED)
    assert found.metrics.keys() == {*MEASURES, "ndcg_at_10_error", "ranked_users"}
    assert all(np.isfinite(value) for value in found.metrics.values())


def test_what_a_version_has_not_learnt_from_counts_as_history(dataset, trained):
    """The one chosen on validation knows no validation rows; a server has them, and lists them no more."""
    known = dataset.train.joined(dataset.validation)
    histories = {}
    for user, name in enumerate(dataset.user_ids):
        mine = known[np.flatnonzero(known.users == user)]
        histories[name] = History(dataset.item_ids[mine.items], mine.ratings)
    found = evaluate_lists(trained.chosen, dataset, "test", seed=0)
    assert found.ndcg == pytest.approx(by_hand(trained.chosen, dataset, histories))
    assert found.ndcg != pytest.approx(by_hand(trained.chosen, dataset))


def test_ratings_outside_the_scale_of_a_version_are_moved_into_it(dataset, trained):
    wider = dataset.holding(
        validation=Interactions(dataset.validation.users, dataset.validation.items, dataset.validation.ratings * 3)
    )
    assert np.isfinite(evaluate_lists(trained.chosen, wider, "test", seed=0).metrics["ndcg_at_10"])


def test_of_many_users_some_are_drawn_whatever_their_codes(dataset, trained, monkeypatch):
    whole = evaluate_lists(trained.final, dataset, "test", seed=0)
    measuring._ask.cache_clear()
    monkeypatch.setattr(measuring, "MOST_RANKED_USERS", 9)
    some = evaluate_lists(trained.final, dataset, "test", seed=0)
    measuring._ask.cache_clear()
    assert some.metrics["ranked_users"] == len(some.users) == 9
    assert some.ndcg == pytest.approx(whole.ndcg[np.searchsorted(whole.users, some.users)])


def test_who_likes_nothing_is_not_asked_about(dataset):
    nothing = dataset.holding(test=Interactions(dataset.test.users, dataset.test.items, dataset.test.ratings * 0 + 1))
    knowledge = learn_knowledge(nothing)[0]
    table = TableRecommender(knowledge, np.zeros((USERS, ITEMS)), np.zeros((USERS, ITEMS)))
    found = evaluate_lists(table, nothing, "test", seed=0)
    assert found.metrics.pop("ranked_users") == 0
    assert all(np.isnan(value) for value in found.metrics.values())


def test_equal_scores_are_ordered_by_id_where_all_items_are_ranked(dataset):
    knowledge = learn_knowledge(dataset)[0]
    table = TableRecommender(knowledge, np.full((USERS, ITEMS), 3.0), np.full((USERS, ITEMS), 0.5))
    asked = measuring._ask(dataset, "test", 0)
    lists = measuring._ranked(table, dataset, asked)
    for row, items in enumerate(lists):
        seen = set(asked.learnt.items[asked.learnt.users == row].tolist())
        assert [item for item in items if item >= 0] == [item for item in range(ITEMS) if item not in seen]
