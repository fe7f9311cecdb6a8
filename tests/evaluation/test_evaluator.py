import math

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.recommender import Predictions
from recsys.training.trainer import learn_knowledge
from tests.support.builders import TableRecommender

# Users a to d on items w to z in order of time: 8 training rows, 4 for validation, 4 for the test.
TRAIN = ["aw5", "ax1", "bw2", "cw4", "cx3", "cy5", "dw1", "dx5"]
VALIDATION = ["bx4", "cz1", "dy2", "dz5"]
TEST = ["ay5", "az1", "by2", "bz4"]

#          w  x  y  z
RATING = [[3, 3, 4, 2], [3, 3, 4, 4], [3, 3, 3, 3], [3, 3, 3, 3]]  # of users a to d
LIKE = [[1, 1, 0.8, 0.6], [1, 1, 0.7, 0.6], [0, 0, 0, 0], [0, 0, 0, 0]]


def dataset_of(prepare_rows, *rows):
    parsed = [(user, item, int(rating), moment) for moment, (user, item, rating) in enumerate(rows)]
    return prepare_rows(parsed, split="time", test_size=0.25, validation_size=0.25)


def table(dataset, rating=RATING, like=LIKE):
    return TableRecommender(learn_knowledge(dataset)[0], np.array(rating), np.array(like))


@pytest.fixture
def square(prepare_rows):
    return dataset_of(prepare_rows, *TRAIN, *VALIDATION, *TEST)


def test_the_square_is_split_as_it_is_written(square):
    for part, rows in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        found = getattr(square, part)
        ids = zip(square.user_ids[found.users], square.item_ids[found.items], found.ratings, strict=True)
        assert [f"{user}{item}{rating:g}" for user, item, rating in ids] == rows


def test_metrics_are_those_worked_by_hand(square):
    metrics = evaluate(table(square), square, baselines=False).metrics
    assert metrics == pytest.approx(
        {
            "rmse": math.sqrt((1 + 1 + 4 + 0) / 4),
            "mae": 1,
            # ay .8 beats az .6 and by .7; bz .6 ties with az, loses to by.
            "auc": 2.5 / 4,
            "accuracy": 0.5,
            "f1_score": 2 / 3,
            "log_loss": -(math.log(0.8) + math.log(0.4) + math.log(0.3) + math.log(0.6)) / 4,
            # The two of .6, one of which is liked, share a bin; .7 and .8 have one each.
            "calibration_error": (2 * (0.6 - 0.5) + 0.7 + 0.2) / 4,
            "auc_per_user": (1 + 0) / 2,
            "auc_users": 2,
            "rows": 4,
            "positive_rate": 0.5,
            "unknown_user_rows": 0,
            "unknown_item_rows": 0,
            "seen_rows": 0,
            # Of y and z, which they have not rated before, both get y first; a likes y, b likes z.
            "ndcg_at_10": (1 + 1 / math.log2(3)) / 2,
            "ndcg_at_10_error": (1 - 1 / math.log2(3)) / 2,
            "recall_at_10": 1,
            "recall_at_20": 1,
            "precision_at_10": 1 / 4,  # the catalogue has four items
            "map_at_10": (1 + 1 / 2) / 2,
            "mrr_at_10": (1 + 1 / 2) / 2,
            "coverage_at_10": 2 / 4,
            # Two of the four users rated y before, and two z: the same two.
            "novelty_at_10": 1,
            "diversity_at_10": 0,
            "gini_at_10": 1 / 2,  # w and x never, y and z twice each
            "ranked_users": 2,
            "makes_lists": 0,
        }
    )


def test_a_validation_is_measured_on_the_validation_rows(square):
    measured = evaluate(table(square), square, part="validation", ranking=False, baselines=False)
    # b: x is 3 instead of 4; c: z is 3 instead of 1; d: y is 3 instead of 2, z 3 instead of 5.
    assert measured.metrics["mae"] == pytest.approx((1 + 2 + 1 + 2) / 4)
    assert len(measured.rows) == 4


def test_in_a_validation_only_training_items_are_left_out_of_the_ranking(square):
    # d has rated w and x in training; y and z are validation rows, of which d likes z. b likes x, not yet w.
    like = [[0, 0, 0, 0], [1, 0.9, 0.2, 0.1], [0, 0, 0, 0], [1, 1, 0.1, 0.9]]
    metrics = evaluate(table(square, like=like), square, part="validation", baselines=False).metrics
    assert metrics["ndcg_at_10"] == pytest.approx(1)
    assert metrics["ranked_users"] == 2


@pytest.mark.parametrize(("liked", "ndcg", "recall"), [("l", 1 / math.log2(11), 1), ("m", 0, 0)])
def test_the_tenth_place_is_a_hit_and_the_eleventh_is_none(prepare_rows, liked, ndcg, recall):
    items = "abcdefghijklm"  # v has rated them all; u has rated a and b, so the catalogue left to u starts with c
    rows = [*(f"v{item}5" for item in items), "ua1", "ub5", f"u{liked}5"]
    rows = [(user, item, int(rating), moment) for moment, (user, item, rating) in enumerate(rows)]
    dataset = prepare_rows(rows, split="time", test_size=1 / 16, validation_size=1 / 16)
    like = np.tile(np.linspace(1, 0, len(items)), (2, 1))
    metrics = evaluate(table(dataset, np.full(like.shape, 3), like), dataset, baselines=False).metrics
    assert (metrics["ndcg_at_10"], metrics["recall_at_10"]) == pytest.approx((ndcg, recall))
    assert metrics["coverage_at_10"] == pytest.approx(10 / 13)


def test_unknown_ids_are_counted_and_scored_by_the_fallback(prepare_rows):
    dataset = dataset_of(prepare_rows, *TRAIN, *VALIDATION, "ay5", "ez1", "bv2", "ev4")
    recommender = table(dataset)
    measured = evaluate(recommender, dataset, baselines=False)
    assert (measured.metrics["unknown_user_rows"], measured.metrics["unknown_item_rows"]) == (2, 2)
    biases = recommender.knowledge.biases
    z = recommender.knowledge.item_codes(np.array(["z"], object))[0]
    b = recommender.knowledge.user_codes(np.array(["b"], object))[0]
    expected = [4, biases.mean + biases.item[z], biases.mean + biases.user[b], biases.mean]
    assert measured.predictions.rating == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rating", "like"), [(np.nan, 0.5), (3, np.nan), (3, 1.01), (3, -0.01)], ids=["nan", "no like", "over", "under"]
)
def test_predictions_that_are_no_numbers_or_probabilities_are_refused(square, rating, like):
    ratings, likes = np.full((4, 4), 3.0), np.full((4, 4), 0.5)
    ratings[1, 3], likes[1, 3] = rating, like
    with pytest.raises(InputError, match=r"^table: finite ratings .* in 1 of 4 rows; train the version again"):
        evaluate(table(square, ratings, likes), square)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["ay5", "az4", "by4", "bz5"], "all 4 rows are likes"),
        (["ay1", "az2", "by3", "bz1"], "all 4 rows are no likes"),
    ],
)
def test_what_does_not_exist_on_one_class_is_undefined_and_no_metric(prepare_rows, rows, reason):
    dataset = dataset_of(prepare_rows, *TRAIN, *VALIDATION, *rows)
    measured = evaluate(table(dataset), dataset)
    assert measured.undefined["auc"] == reason
    assert measured.undefined["auc_per_user"] == "no user has both likes and other ratings"
    assert ("ndcg_at_10" in measured.undefined) == ("no" in reason.split())
    assert not measured.undefined.keys() & measured.metrics.keys()
    assert all(math.isfinite(value) for value in measured.metrics.values())
    assert not any(name.endswith("auc") for name in measured.metrics)


def test_the_baselines_are_measured_on_the_same_rows(square):
    metrics = evaluate(table(square), square).metrics
    biases = learn_knowledge(square)[0].biases
    predicted = np.clip(biases.rating(square.test.users, square.test.items), 1, 5)
    assert metrics["baseline_bias_rmse"] == pytest.approx(np.sqrt(np.mean((predicted - square.test.ratings) ** 2)))
    for name in ("rmse", "mae", "auc", "accuracy", "f1_score", "log_loss", "auc_per_user", "ndcg_at_10"):
        assert f"baseline_bias_{name}" in metrics
        assert f"baseline_most_popular_{name}" in metrics
        assert f"baseline_most_liked_{name}" in metrics


def test_most_popular_ranks_by_the_number_of_ratings(square):
    # Learnt from: w has 4 ratings, x 4, y 2, z 2: y and z tie in popularity, so every pair of the test does.
    assert evaluate(table(square), square).metrics["baseline_most_popular_auc"] == 0.5


def test_most_liked_ranks_by_the_number_of_likes(square):
    # Learnt from: w has 2 likes, x 2, y 1, z 1: y and z tie here too.
    metrics = evaluate(table(square), square).metrics
    assert metrics["baseline_most_liked_auc"] == 0.5


def test_what_is_liked_more_often_goes_first(prepare_rows):
    # Learnt from: y has 1 like of 3 ratings, z 2 of 2. What has most ratings is liked least, so they say nothing here.
    learnt = ["ax5", "ax1", "bx2", "cy5", "dy1", "ey1", "cz5", "dz5"]
    dataset = dataset_of(prepare_rows, *learnt, "ay1", "az5", "by1", "bz5")
    metrics = evaluate(TableRecommender(learn_knowledge(dataset)[0], *np.zeros((2, 5, 3))), dataset).metrics
    assert metrics["baseline_most_liked_auc"] == 1
    assert metrics["baseline_most_popular_auc"] == 0.5


def test_an_item_that_nobody_rated_is_in_no_list(prepare_rows):
    """b likes v, which is new: its fallback, of a user who rates high, is above all that the table says."""
    dataset = dataset_of(prepare_rows, *TRAIN, *VALIDATION, "ay5", "az1", "by2", "bv5")
    metrics = evaluate(table(dataset, like=np.full((4, 4), 0.01)), dataset).metrics
    assert metrics["ranked_users"] == 2
    assert metrics["coverage_at_10"] == 2 / 5  # y and z
    assert metrics["recall_at_10"] == 0.5  # a's y
    assert metrics["baseline_most_popular_recall_at_10"] == 0.5


class CheatRecommender(TableRecommender):
    """Knows nothing but that who rates at an odd moment likes it."""

    def _score_known_at(self, users, items, timestamps):
        like = np.asarray(timestamps % 2, np.float64)
        return Predictions(1 + 4 * like, like)


def test_what_is_known_only_from_the_moment_of_a_rating_counts_beside_not_in_the_measures(prepare_rows):
    """A family that cheats by timestamps wins by the timed number, and loses by the one that is compared."""
    liked_at_odd = [(user, item, int(rating)) for user, item, rating in [*TRAIN, *VALIDATION, *TEST]]
    rows = [(u, i, rating, 2 * moment + (rating >= 4)) for moment, (u, i, rating) in enumerate(liked_at_odd)]
    dataset = prepare_rows(rows, split="time", test_size=0.25, validation_size=0.25)
    honest = evaluate(table(dataset), dataset, baselines=False).metrics
    flat = np.full((4, 4), 3.0), np.full((4, 4), 0.5)
    cheat = evaluate(CheatRecommender(learn_knowledge(dataset)[0], *flat), dataset, baselines=False).metrics
    assert cheat["timed_auc"] == cheat["timed_auc_per_user"] == 1
    assert cheat["timed_rmse"] < honest["rmse"]
    assert cheat["timed_auc"] > honest["auc"] > cheat["auc"] == 0.5
    assert not any(name.startswith("timed_") for name in honest)


def test_intervals_of_a_family_that_gives_them_are_counted(square):
    class Spread(TableRecommender):
        def predictive_std(self, user_ids, item_ids, timestamps=None):
            return np.array([0.4, 0.5, 1.1, 0.1])

    # The errors are 1, 1, 2 and 0; 1.96 standard deviations are 0.78, 0.98, 2.16 and 0.20.
    metrics = evaluate(Spread(learn_knowledge(square)[0], np.array(RATING), np.array(LIKE)), square).metrics
    assert metrics["interval_coverage"] == 2 / 4


def test_every_metric_has_a_lower_case_name(square):
    assert all(name == name.lower() for name in evaluate(table(square), square).metrics)


def test_ranking_draws_the_same_users_for_the_same_seed(square, monkeypatch):
    monkeypatch.setattr("recsys.evaluation.lists.MOST_RANKED_USERS", 1)
    found = {
        seed: evaluate(table(square), square, baselines=False, seed=seed).metrics["ndcg_at_10"] for seed in range(8)
    }
    again = {
        seed: evaluate(table(square), square, baselines=False, seed=seed).metrics["ndcg_at_10"] for seed in range(8)
    }
    assert found == again
    assert sorted(set(found.values())) == pytest.approx([1 / math.log2(3), 1])


def test_users_ranked_in_batches_are_ranked_alike(square, monkeypatch):
    whole = evaluate(table(square), square, baselines=False).metrics
    monkeypatch.setattr("recsys.evaluation.lists._PAIRS_AT_A_TIME", 4)
    assert evaluate(table(square), square, baselines=False).metrics == whole
