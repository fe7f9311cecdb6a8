"""AUC where there are no ratings: pairs held out against pairs never taken, all of them."""

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.evaluation.taking import evaluate_taking
from recsys.testing.datasets import prepared
from recsys.training.trainer import learn_knowledge
from tests.support.builders import TableRecommender

USERS, ITEMS = 12, 9


@pytest.fixture
def dataset(tmp_path):
    rows = [(f"u{u:02}", f"i{i}", 1) for u in range(USERS) for i in range(ITEMS) if (u * 5 + i * 3) % 4]
    return prepared(tmp_path, rows)


@pytest.fixture
def table(dataset):
    """Scores of two digits, so that some are equal."""
    knowledge, _ = learn_knowledge(dataset)
    shape = len(knowledge.user_ids), len(knowledge.item_ids)
    assert shape == (USERS, ITEMS)
    like = np.random.default_rng(3).integers(1, 30, shape) / 30
    return TableRecommender(knowledge, like, like)


def counted(pairs):
    """The share of (held out, never taken) pairs of scores in the right order, ties counting half."""
    return np.mean([1.0 if one > other else 0.5 if one == other else 0.0 for one, other in pairs])


def test_it_is_the_share_of_pairs_in_the_right_order(dataset, table):
    scores = table.tables[1]
    test = {(u, i) for u, i in zip(dataset.test.users, dataset.test.items, strict=True)}
    taken = test | {
        (u, i) for part in (dataset.train, dataset.validation) for u, i in zip(part.users, part.items, strict=True)
    }
    users = sorted({u for u, _ in test})
    held_out = {u: [scores[pair] for pair in test if pair[0] == u] for u in users}
    never = {u: [scores[u, i] for i in range(ITEMS) if (u, i) not in taken] for u in users}
    found = evaluate_taking(table, dataset, "test", 1)
    pooled = [(x, y) for u in users for v in users for x in held_out[u] for y in never[v]]
    assert found.auc == pytest.approx(counted(pooled))
    of_users = [counted([(x, y) for x in held_out[u] for y in never[u]]) for u in users]
    assert found.user_auc == pytest.approx(of_users)
    assert evaluate(table, dataset, ranking=False).metrics["auc"] == found.auc


def test_whoever_ranks_all_alike_has_a_half_and_whoever_knows_has_one(dataset, table):
    same = TableRecommender(table.knowledge, np.full((USERS, ITEMS), 0.3), np.full((USERS, ITEMS), 0.3))
    assert evaluate_taking(same, dataset, "test", 1).auc == 0.5
    knowing = np.zeros((USERS, ITEMS))
    knowing[dataset.test.users, dataset.test.items] = 1
    found = evaluate_taking(TableRecommender(table.knowledge, knowing, knowing), dataset, "test", 1)
    assert found.auc == 1
    assert found.expected == pytest.approx(1)
    assert found.metrics["measured_users"] == len(found.users)


def test_replicates_lie_around_the_measure_and_are_the_same_again(dataset, table):
    found = evaluate_taking(table, dataset, "test", 1)
    one, of_users = found.replicates(dataset.user_ids, dataset.test_digest)
    again, _ = found.replicates(dataset.user_ids, dataset.test_digest)
    assert len(one) == len(of_users) == 2_000
    assert one.tolist() == again.tolist()
    assert np.nanmean(one) == pytest.approx(found.auc, abs=0.03)
    assert np.nanmean(of_users) == pytest.approx(np.nanmean(found.user_auc), abs=0.03)


def test_popularity_is_the_only_baseline(dataset, table):
    metrics = evaluate(table, dataset).metrics
    assert {name.split("_auc")[0] for name in metrics if name.startswith("baseline") and name.endswith("auc")} == {
        "baseline_most_popular"
    }
    assert not {"rmse", "mae", "accuracy", "positive_rate"} & set(metrics)


def test_ratings_and_takes_are_not_compared(table, tmp_path):
    rated = prepared(
        tmp_path / "rated" if (tmp_path / "rated").mkdir() is None else tmp_path,
        [(f"u{u:02}", f"i{i}", 1 + (u + i) % 5) for u in range(6) for i in range(6)],
    )
    with pytest.raises(InputError, match="this version learnt from who took what, without ratings"):
        evaluate(table, rated)
