import math

import numpy as np
import pytest

from recsys.data import builder
from recsys.data.preparation import Preparation
from recsys.evaluation import bootstrap
from recsys.evaluation.forward import evaluate_forward
from recsys.evaluation.lists import evaluate_lists
from recsys.models.base.family import family_module
from recsys.models.bias import Config
from recsys.training.trainer import learn_knowledge, train
from tests.support.builders import TableRecommender

# In order of time. Learnt from are a to d on w to z; e and v are new then.
OLDER = ["aw5", "ax1", "bw2", "cw4", "cx3", "cy5", "dw1", "dx5", "bx4", "cz1", "dy2", "dz5"]
NEWEST = ["ay5", "az1", "by2", "bz4", "ew5", "ex1", "av4", "bv2"]
#          w  x  y  z
RATING = [[3, 3, 4, 2], [3, 3, 4, 4], [3, 3, 3, 3], [3, 3, 3, 3]]  # of users a to d
LIKE = [[1, 1, 0.8, 0.6], [1, 1, 0.7, 0.6], [0, 0, 0, 0], [0, 0, 0, 0]]


def dataset_of(prepare_rows, newest):
    rows = [(user, item, int(rating), moment) for moment, (user, item, rating) in enumerate([*OLDER, *newest])]
    return prepare_rows(rows, split="time", test_size=len(newest) / len(rows), validation_size=4 / len(rows))


def measured(prepare_rows, newest=NEWEST):
    dataset = dataset_of(prepare_rows, newest)
    return evaluate_forward(TableRecommender(learn_knowledge(dataset)[0], np.array(RATING), np.array(LIKE)), dataset)


def test_rows_of_known_users_and_items_are_measured_alone(prepare_rows):
    found = measured(prepare_rows)
    counts = [found.metrics[f"forward_{group}rows"] for group in ("", "warm_", "cold_")]
    assert counts == [8, 4, 4]
    # ay .8 beats az .6 and by .7; bz .6 ties with az, loses to by.
    assert found.metrics["forward_warm_auc"] == 2.5 / 4
    assert found.metrics["forward_warm_rmse"] == pytest.approx(math.sqrt((1 + 1 + 4 + 0) / 4))
    assert found.metrics["forward_warm_auc_per_user"] == (1 + 0) / 2
    # The two of .6, one of which is liked, share a bin; .7 and .8 have one each.
    assert found.metrics["forward_warm_calibration_error"] == pytest.approx((2 * (0.6 - 0.5) + 0.7 + 0.2) / 4)
    assert "forward_warm_interval_coverage" not in found.metrics  # the family tells no spread


def test_what_does_not_exist_is_left_out(prepare_rows):
    found = measured(prepare_rows, ["ay5", "az1", "ew5", "bv5"])
    assert found.metrics["forward_cold_rows"] == 2
    assert "forward_cold_auc" not in found.metrics
    assert "forward_cold_auc_per_user" not in found.metrics
    none_cold = measured(prepare_rows, NEWEST[:4])
    assert none_cold.metrics["forward_cold_rows"] == 0
    assert "forward_cold_rmse" not in none_cold.metrics
    liked = measured(prepare_rows, ["ay5", "bz4", "ew5", "bv5"])
    assert liked.replicates is None
    assert liked.warm_replicates is None


def test_the_digest_names_the_rows_whatever_the_model_says_of_them(prepare_rows):
    dataset = dataset_of(prepare_rows, NEWEST)
    knowledge = learn_knowledge(dataset)[0]
    tables = np.array(RATING), np.array(LIKE)
    one = evaluate_forward(TableRecommender(knowledge, *tables), dataset).digest
    assert evaluate_forward(TableRecommender(knowledge, tables[0], tables[1] / 2), dataset).digest == one
    assert measured(prepare_rows, [*NEWEST[:-1], "bv3"]).digest != one


def test_the_replicates_are_those_of_the_bootstrap_on_these_rows(prepare_rows):
    dataset = dataset_of(prepare_rows, NEWEST)
    found = measured(prepare_rows)
    users, liked = dataset.test.users[:4], dataset.likes(dataset.test)[:4]
    expected = bootstrap.replicate_auc(
        users, dataset.user_ids, liked, np.array([0.8, 0.6, 0.7, 0.6]), test_digest=found.digest
    )
    np.testing.assert_array_equal(found.warm_replicates, expected)
    assert found.replicates.shape == expected.shape


def test_lists_of_the_newest_rows_are_those_of_the_version_fitted_to_the_older_ones(prepare_rows):
    """Known users are told apart, and what is popular among the older rows stands beside."""
    rng = np.random.default_rng(5)
    pairs = [(f"u{user:02}", f"i{item:02}") for user in range(30) for item in range(user % 2, 24, 2)]
    rows = [(*pairs[k], int(rng.integers(1, 6)), moment) for moment, k in enumerate(rng.permutation(len(pairs)))]
    rows += [(f"new{user}", "i01", 5, 10_000 + user) for user in range(4)]
    trained = train("bias", prepare_rows(rows), Config(), seed=0, forward=True)
    recommender, dataset = trained.forward.recommender, trained.forward.dataset
    assert recommender.lists.regression == trained.chosen.lists.regression
    found = evaluate_forward(recommender, dataset).metrics
    every = evaluate_lists(recommender, dataset, "test", seed=0)
    known = np.isin(dataset.user_ids[every.users], recommender.knowledge.user_ids)
    assert found["forward_ndcg_at_10"] == pytest.approx(every.ndcg.mean())
    assert found["forward_warm_ndcg_at_10"] == pytest.approx(every.ndcg[known].mean())
    assert (found["forward_ranked_users"], found["forward_warm_ranked_users"]) == (len(known), known.sum())
    assert 0 < known.sum() < len(known)
    # Lists of one's own half of the catalogue are better than those of what is popular in both.
    assert found["forward_warm_ndcg_at_10"] > found["forward_warm_popular_ndcg_at_10"]


def test_without_ratings_what_was_taken_next_is_ranked_against_what_never_was(tmp_path):
    """Of two kinds of customers; the newest orders are of known articles and by known customers, but for two."""
    random = np.random.default_rng(5)
    pairs = [(f"c{c}", f"a{a}") for c in range(40) for a in range(20) if c % 2 == a % 2 and random.random() < 0.8]
    random.shuffle(pairs)
    rows = [(*pair, moment) for moment, pair in enumerate([*pairs, ("c0", "new"), ("somebody", "a0")])]
    source = tmp_path / "orders.csv"
    source.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    dataset = builder.prepare(source, Preparation(ratings=str(source)), tmp_path / "prepared")
    assert dataset.implicit
    done = train("ease", dataset, family_module("ease").Config(), seed=0, forward=True)
    assert done.forward
    held = done.forward.dataset
    found = evaluate_forward(done.forward.recommender, held).metrics
    assert found["forward_rows"] == len(held.test)
    assert found["forward_warm_rows"] + found["forward_cold_rows"] == len(held.test)
    assert found["forward_warm_auc"] > 0.8  # three in four of what a customer never took are of the other kind
    assert found["forward_warm_auc"] > found["forward_auc"]
    assert found["forward_warm_ndcg_at_10"] > found["forward_warm_popular_ndcg_at_10"]
    assert "forward_rmse" not in found
