import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from recsys.evaluation import bootstrap

DIGEST = "0123abcd" * 4


def sample(seed, users=40, rows=600, levels=None):
    """Likes, and two scores of the same quality; with `levels`, scores have many ties."""
    random = np.random.default_rng(seed)
    of_user = random.integers(0, users, rows)
    taste = random.normal(0, 0.7, users)[of_user] + random.normal(size=rows)
    liked = taste + random.normal(size=rows) > 0
    shared = random.normal(0, 0.5, rows)
    scores = [taste + shared + random.normal(0, 0.5, rows) for _ in range(2)]
    if levels:
        scores = [np.round(score * levels) / levels for score in scores]
    ids = np.array([f"user {number}" for number in range(users)], object)
    return of_user, ids, liked, scores


def replicates(users, ids, liked, score, digest=DIGEST):
    return bootstrap.replicate_auc(users, ids, liked, score, test_digest=digest)


@pytest.mark.parametrize("levels", [None, 2, 0.01], ids=["no ties", "ties", "all tied"])
def test_a_replicate_is_the_auc_with_its_users_weighted(levels):
    users, ids, liked, (score, _) = sample(1, levels=levels)
    found = replicates(users, ids, liked, score)
    weights = bootstrap._weights(DIGEST, 0, len(ids))
    rank = np.argsort(np.argsort(ids))
    for number in range(20):
        expected = roc_auc_score(liked, score, sample_weight=weights[rank[users], number])
        assert found[number] == pytest.approx(expected, abs=1e-12)
    assert len(found) == bootstrap.REPLICATES


def test_by_hand():
    """One user likes a and not b, the other likes nothing: half the pairs are in order, whoever is drawn how often."""
    users = np.array([0, 0, 1], np.int32)
    found = replicates(users, np.array(["x", "y"], object), np.array([1, 0, 0], bool), np.array([0.5, 0.1, 0.9]))
    weights = bootstrap._weights(DIGEST, 0, 2)
    x, y = weights[0].astype(float), weights[1].astype(float)
    with np.errstate(invalid="ignore"):
        expected = x * x / (x * (x + y))  # weight of the one pair in order, of both pairs
    np.testing.assert_allclose(found[: len(expected)], expected)


def plain_auc(liked, score):
    likes, rows = liked.sum(), len(liked)
    return (rankdata(score)[liked].sum() - likes * (likes + 1) / 2) / (likes * (rows - likes))


def test_the_intervals_are_those_of_a_plain_bootstrap_that_sorts_every_time():
    users, ids, liked, (first, second) = sample(2, users=80, rows=800)
    random = np.random.default_rng(0)
    rows_of = [np.flatnonzero(users == user) for user in range(len(ids))]
    plain = []
    for _ in range(2000):
        rows = np.concatenate([rows_of[user] for user in random.integers(0, len(ids), len(ids))])
        plain.append(plain_auc(liked[rows], first[rows]) - plain_auc(liked[rows], second[rows]))
    ours = replicates(users, ids, liked, first) - replicates(users, ids, liked, second)
    spread = np.std(plain)
    assert np.std(ours) == pytest.approx(spread, rel=0.1)
    for quantile in (0.025, 0.5, 0.975):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(plain, quantile), abs=0.25 * spread)


@pytest.mark.simulation
def test_the_interval_of_two_equal_models_holds_zero_as_often_as_it_says():
    """A shorter form of `python -m bench.promotion`: at 120 pairs, 95% give or take three standard errors."""
    held = 0
    for seed in range(120):
        users, ids, liked, (first, second) = sample(seed, users=100, rows=1000)
        found = [replicates(users, ids, liked, score, digest=f"{seed:x}") for score in (first, second)]
        comparison = bootstrap.compare(0, found[0], 0, found[1], level=0.95)
        held += comparison.low <= 0 <= comparison.high
    assert 0.89 <= held / 120 <= 1


def test_users_are_drawn_together_with_all_their_rows():
    """Ten users with a hundred equal rows each are as uncertain as ten with one: rows alone would seem surer."""
    random = np.random.default_rng(3)
    liked, score = np.arange(10) % 2 == 0, random.normal(size=10)
    ids = np.array(list("abcdefghij"), object)
    once = replicates(np.arange(10), ids, liked, score)
    often = replicates(np.repeat(np.arange(10), 100), ids, np.repeat(liked, 100), np.repeat(score, 100))
    np.testing.assert_allclose(once, often)


def test_the_draws_go_by_user_id_and_test_set_not_by_codes_or_order():
    users, ids, liked, (score, _) = sample(4)
    found = replicates(users, ids, liked, score)
    order = np.random.default_rng(0).permutation(len(ids))
    wider = np.concatenate([["0 has no test row"], ids[np.argsort(order)]]).astype(object)
    rows = np.random.default_rng(1).permutation(len(users))
    again = replicates((order[users] + 1)[rows], wider, liked[rows], score[rows])
    np.testing.assert_allclose(found, again, atol=1e-12)
    assert not np.allclose(found, replicates(users, ids, liked, score, digest="ff"))


def test_the_weights_never_change():
    """Versions measured years apart are compared on the same draws; the bits are PCG64's, which are fixed."""
    weights = bootstrap._weights(DIGEST, 50, 3)
    assert weights[:, :8].astype(int).tolist() == [
        [1, 1, 2, 1, 0, 0, 0, 1],
        [3, 1, 1, 4, 0, 0, 4, 1],
        [0, 0, 1, 0, 0, 3, 1, 1],
    ]
    table = bootstrap._POISSON
    assert (table.mean(), table.var()) == (pytest.approx(1, abs=1e-4), pytest.approx(1, abs=1e-3))


def test_a_clear_gain_has_an_interval_above_zero_and_a_small_p_value():
    users, ids, liked, (score, _) = sample(5)
    noisy = score + np.random.default_rng(0).normal(0, 2, len(score))
    aucs = roc_auc_score(liked, score), roc_auc_score(liked, noisy)
    found = bootstrap.compare(
        aucs[0], replicates(users, ids, liked, score), aucs[1], replicates(users, ids, liked, noisy), level=0.95
    )
    assert found.difference == aucs[0] - aucs[1]
    assert 0 < found.low < found.difference < found.high
    assert found.p_value == pytest.approx(2 / 2001)


def test_a_model_against_itself_differs_by_nothing():
    users, ids, liked, (score, _) = sample(6)
    same = replicates(users, ids, liked, score)
    found = bootstrap.compare(0.7, same, 0.7, same, level=0.95)
    assert (found.low, found.difference, found.high, found.p_value) == (0, 0, 0, 1)


def test_where_one_user_has_all_likes_there_is_no_interval():
    liked = np.array([True, False, False])
    found = replicates(np.arange(3), np.array(list("abc"), object), liked, np.arange(3.0))
    assert np.isnan(found).any()
    assert bootstrap.compare(0.5, found, 0.5, found, level=0.95) is None
    assert bootstrap.compare(0.5, found[:0], 0.5, found[:0], level=0.95) is None


def test_a_larger_test_set_gets_fewer_replicates():
    assert [bootstrap.count_replicates(rows) for rows in (1, 10**6, 4 * 10**6, 10**9)] == [2000, 2000, 500, 200]


def test_a_replicate_of_the_per_user_auc_is_the_weighted_mean_over_users():
    users, ids, liked, (score, _) = sample(7)
    found = bootstrap.replicate_user_auc(users, ids, liked, score, test_digest=DIGEST)
    weights = bootstrap._weights(DIGEST, 0, len(ids))
    rank = np.argsort(np.argsort(ids))
    both, values = [], []
    for user in np.unique(users):
        mine = users == user
        if 0 < liked[mine].sum() < mine.sum():
            both.append(user)
            values.append(roc_auc_score(liked[mine], score[mine]))
    for number in range(20):
        assert found[number] == pytest.approx(np.average(values, weights=weights[rank[both], number]), abs=1e-12)
    assert len(found) == bootstrap.REPLICATES


def equal_gains(count, seed=0):
    """Gains of versions that are as good as the champion, as measured and by replicate."""
    random = np.random.default_rng(seed)
    gains = random.normal(0, 0.01, count)
    return gains, gains[:, None] + random.normal(0, 0.01, (count, 2000))


def test_a_gain_that_was_not_chosen_from_many_is_corrected_by_nothing():
    (gain,), replicates = equal_gains(1)
    (corrected,) = bootstrap.correct(np.array([gain]), replicates, level=0.9)
    plain = bootstrap.compare(gain, replicates[0], 0.0, np.zeros(2000), level=0.9)
    assert (corrected.low, corrected.high) == pytest.approx((plain.low, plain.high))
    assert corrected.p_value == pytest.approx(plain.p_value)
    assert corrected.compared == 1


def test_the_best_of_many_equal_versions_shows_a_gain_as_seldom_as_one():
    """The interval of the best of twenty is above zero in four of ten without the correction, in one of 40 with it."""
    plain, corrected = 0, 0
    for seed in range(200):
        gains, replicates = equal_gains(20, seed)
        best = int(np.argmax(gains))
        plain += bootstrap.compare(gains[best], replicates[best], 0.0, np.zeros(2000), level=0.95).low > 0
        found = bootstrap.correct(gains, replicates, level=0.95)[best]
        corrected += found.low > 0
        assert (found.p_value < 0.05) == (found.low > 0) or found.p_value == pytest.approx(0.05, abs=0.002)
    assert plain > 50
    assert corrected <= 12


def test_versions_without_hope_and_twins_of_the_champion_cost_no_confidence():
    gains, replicates = equal_gains(1)
    alone = bootstrap.correct(gains, replicates, level=0.95)[0]
    hopeless = np.full(50, -0.1), np.full((50, 1), -0.1) + np.random.default_rng(1).normal(0, 0.01, (50, 2000))
    twin = np.zeros(1), np.zeros((1, 2000))
    together = [np.concatenate(parts) for parts in zip((gains, replicates), hopeless, twin, strict=True)]
    found = bootstrap.correct(*together, level=0.95)
    assert (found[0].low, found[0].high) == (alone.low, alone.high)
    assert found[1:51] == [None] * 50
    assert (found[51].low, found[51].high, found[51].p_value) == (0, 0, 1)
    assert bootstrap.correct(np.zeros(0), np.zeros((0, 2000)), level=0.95) == []
