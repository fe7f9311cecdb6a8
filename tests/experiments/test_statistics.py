"""The formulas beside an independent implementation (ville), and on paths where nothing is the matter."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from recsys.experiments import events, sample_ratio
from recsys.experiments.assignment import CHALLENGER, CHAMPION, arm_of
from recsys.experiments.differences import NOTHING, Summary, boundary, interval, mixture_boundary, summarise
from recsys.experiments.precision import precisions, variances


@pytest.fixture(scope="module")
def ville():
    return pytest.importorskip("ville", reason="requirements-dev.txt has it")


def test_a_user_stays_in_an_arm_and_another_salt_assigns_anew():
    users = [f"user {number}" for number in range(4000)]
    one = [arm_of(user, "salt", 0.3) for user in users]
    assert one == [arm_of(user, "salt", 0.3) for user in users]
    assert {*one} == {CHAMPION, CHALLENGER}
    assert one.count(CHALLENGER) / len(users) == pytest.approx(0.3, abs=0.04)
    other = [arm_of(user, "pepper", 0.3) for user in users]
    both = sum(a == b == CHALLENGER for a, b in zip(one, other, strict=True)) / len(users)
    assert both == pytest.approx(0.09, abs=0.03)


def test_a_larger_share_takes_no_user_back():
    users = [f"user {number}" for number in range(1000)]
    small = {user for user in users if arm_of(user, "salt", 0.1) == CHALLENGER}
    assert small < {user for user in users if arm_of(user, "salt", 0.5) == CHALLENGER}


def test_the_assignment_never_changes_between_releases():
    """Else a running trial would show its users the other arm after an upgrade."""
    found = [arm_of(name, "s", 0.5) for name in ("1", "ü", "u7", "\ud800")]
    assert found == [CHALLENGER, CHALLENGER, CHAMPION, CHAMPION]


def test_the_boundary_around_no_drift_is_ville_s_two_sided_normal_mixture(ville):
    from ville._boundaries import normal_mixture

    times = np.geomspace(10, 1e6, 40)
    for alpha in (0.05, 0.025, 0.001):
        ours = mixture_boundary(times, alpha, 0.0, 0.02)
        assert ours == pytest.approx(normal_mixture(times, alpha, 1 / 0.02**2, one_sided=False), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("time", [100.0, 15_000.0, 1e6])
def test_at_the_boundary_the_mean_of_the_likelihood_ratios_is_one_over_alpha(alpha, time):
    mean, deviation = 0.016, 0.005
    sum_ = float(mixture_boundary(time, alpha, mean, deviation))

    def weighted(at: float) -> float:  # at: deviations from the mean drift
        drift = mean + at * deviation
        return math.exp(drift * sum_ - drift**2 * time / 2 - at**2 / 2) / math.sqrt(2 * math.pi)

    around = (sum_ / time - mean) / deviation  # where the likelihood has its maximum
    found = quad(weighted, min(-9, around - 9), max(9, around + 9), limit=500, points=[0.0, around])[0]
    assert found * alpha == pytest.approx(1, rel=1e-6)


def test_the_interval_is_the_difference_and_the_boundary_over_the_information():
    champion, challenger = Summary(400, 0.5, 0.16), Summary(100, 0.6, 0.2)
    found = interval(champion, challenger, alpha=0.05, gain=0.02, least_users=100)
    information = 1 / (0.16 / 400 + 0.2 / 100)
    assert found.difference == pytest.approx(0.1)
    assert found.high - found.difference == pytest.approx(float(boundary(information, 0.05, 0.02)) / information)
    assert found.difference - found.low == pytest.approx(found.high - found.difference)


def test_few_users_or_no_variance_say_nothing():
    assert interval(Summary(99, 0.5, 0.1), Summary(500, 0.6, 0.1), alpha=0.05, gain=0.02, least_users=100) == NOTHING
    same = interval(Summary(200, 1.0, 0.0), Summary(200, 0.0, 0.0), alpha=0.05, gain=0.02, least_users=100)
    assert (same.low, same.high) == (-math.inf, math.inf)
    assert summarise(np.array([]), np.array([])) == Summary(0, 0.0, 0.0)
    assert summarise(np.array([0.25]), np.ones(1)) == Summary(1, 0.25, 0.0)


def test_a_weighted_mean_and_its_variance_are_those_of_the_values_where_all_weigh_alike():
    values = np.random.default_rng(0).normal(size=50)
    found = summarise(values, np.full(50, 7.0))
    assert found == pytest.approx((50, values.mean(), values.var(ddof=1)))
    assert summarise(np.array([1.0, 4.0]), np.array([2.0, 1.0])).mean == pytest.approx(2.0)


def test_users_weigh_by_the_variances_of_a_classical_analysis_where_all_gave_as_many_values():
    random = np.random.default_rng(5)
    users, k = 300, 4
    challenger = random.random(users) < 0.4
    values = random.normal(0, 1, (users, 1)) + 0.5 * challenger[:, None] + random.normal(0, 2, (users, k))
    means = values.mean(1)
    within = ((values - means[:, None]) ** 2).sum(1)
    square_within = within.sum() / (users * (k - 1))
    square_between = k * sum(((means[arm] - means[arm].mean()) ** 2).sum() for arm in (challenger, ~challenger))
    square_between /= users - 2
    taste, noise = variances(np.full(users, k), means, within, challenger)
    assert (taste, noise) == pytest.approx(((square_between - square_within) / k, square_within))
    weights = precisions(np.array([1.0, 4.0, 1e9]), np.zeros(3), np.array([0.0, 6.0, 0.0]), challenger[:3])
    assert (np.diff(weights) >= 0).all()


def test_users_weigh_alike_where_nothing_says_how_well_they_are_known():
    nobody = np.zeros(3, bool)
    for within, counts in ((np.zeros(3), np.array([1.0, 2.0, 9.0])), (np.zeros(3), np.ones(3))):
        assert precisions(counts, np.array([0.0, 0.5, 1.0]), within, nobody).tolist() == [1.0, 1.0, 1.0]
    assert len(precisions(np.zeros(0), np.zeros(0), np.zeros(0), nobody[:0])) == 0


@pytest.mark.simulation
def test_what_a_weighted_mean_gains_is_independent_of_what_it_was_and_a_plain_one_tends_back():
    """The covariance of an early and a late mean is the late one's variance, as the confidence sequence needs."""
    random = np.random.default_rng(6)
    users, early = 300, 150  # those who are there at the first look have rated once, and later often
    pairs = {"weighted": [], "plain": []}
    for _ in range(6000):
        rates = random.beta(2.6, 2.6, users)
        first = random.binomial(1, rates[:early]).astype(float)
        counts = np.where(np.arange(users) < early, 9.0, 1.0)
        likes = random.binomial(np.where(np.arange(users) < early, 8, 1), rates) + np.append(first, np.zeros(early))
        means = likes / counts
        weights = precisions(counts, means, counts * means * (1 - means), np.zeros(users, bool))
        pairs["weighted"].append((first.mean(), weights @ means / weights.sum()))
        pairs["plain"].append((first.mean(), means.mean()))
    covariances = {name: np.cov(np.array(found).T) for name, found in pairs.items()}
    ratio = {name: found[0, 1] / found[1, 1] for name, found in covariances.items()}
    assert ratio["weighted"] == pytest.approx(1, abs=0.08)
    assert ratio["plain"] < 0.8


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("counts", [(0, 0), (3, 1), (0, 6), (40, 30), (2, 25)])
def test_the_uniform_part_of_the_events_test_is_ville_s_bayes_factor_cut_at_the_null(ville, counts, share):
    champion, challenger = counts
    outcomes = np.array([1] * challenger + [0] * champion)
    whole = 0.0
    if len(outcomes):
        test = ville.BernoulliTest(share, prior=(1, 1)).update(outcomes)
        whole = float(test.log_e_values_[-1])
    null = share**challenger * (1 - share) ** champion
    part = quad(lambda p: p**challenger * (1 - p) ** champion, share, 1)[0]
    all_ = quad(lambda p: p**challenger * (1 - p) ** champion, 0, 1)[0]
    assert math.log(all_ / null) == pytest.approx(whole, abs=1e-5)
    point = 100 * share / (100 * share + 1 - share)
    expected = 0.25 * part / (1 - share) / null + 0.75 * point**challenger * (1 - point) ** champion / null
    assert events.log_evidence(champion, challenger, share) == pytest.approx(math.log(expected), abs=1e-5)


def test_the_evidence_of_an_event_has_mean_one_under_the_null():
    """It is a martingale: before the next event its mean is its present value."""
    for champion, challenger in ((0, 0), (5, 3), (1, 12)):
        now = math.exp(events.log_evidence(champion, challenger, 0.2))
        then = 0.2 * math.exp(events.log_evidence(champion, challenger + 1, 0.2)) + 0.8 * math.exp(
            events.log_evidence(champion + 1, challenger, 0.2)
        )
        assert then == pytest.approx(now, rel=1e-9)


def test_a_ratio_allows_as_much_more():
    strict, loose = (events.log_evidence(100, 80, 0.3, ratio) for ratio in (1.0, 1.5))
    assert strict > 3 > 0 > loose


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_sample_ratio_s_evidence_is_ville_s_bayes_factor(ville, share):
    random = np.random.default_rng(3)
    outcomes = (random.random(500) < share + 0.05).astype(int)
    prior = (sample_ratio.CONCENTRATION * share, sample_ratio.CONCENTRATION * (1 - share))
    test = ville.BernoulliTest(share, prior=prior).update(outcomes)
    theirs = test.log_e_values_
    ones = np.cumsum(outcomes)
    counts = np.stack([np.arange(1, 501) - ones, ones], axis=-1)
    assert sample_ratio.log_evidence(counts, (1 - share, share)) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.simulation
def test_with_a_look_after_every_user_equal_arms_are_rarely_told_apart():
    random = np.random.default_rng(11)
    trials, users = 1500, 3000
    values = random.beta(2, 2, (trials, users))
    arms = random.random((trials, users)) < 0.3
    crossed = np.zeros(trials, bool)
    sums = {arm: [np.cumsum(np.where(arms == arm, values**power, 0), 1) for power in (0, 1, 2)] for arm in (0, 1)}
    means, spreads = [], []
    for count, total, squares in sums.values():
        n = np.maximum(count, 1)
        means.append(total / n)
        spreads.append((squares / n - (total / n) ** 2) / n)
    spread = np.maximum(spreads[0] + spreads[1], 1e-12)
    lower = means[1] - means[0] - boundary(1 / spread, 0.05, 0.02) * spread
    ready = np.minimum(sums[0][0], sums[1][0]) >= 100
    crossed = ((lower > 0) & ready).any(1)
    assert crossed.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.simulation
def test_with_a_look_after_every_event_faultless_challengers_pass_the_guards():
    random = np.random.default_rng(12)
    limit = math.log(100)
    alarms = 0
    table = np.array([[events.log_evidence(m, k, 0.2) for k in range(121)] for m in range(201)])
    for _ in range(2000):
        k = np.cumsum(random.random(120) < 0.2)
        alarms += bool((table[np.arange(1, 121) - k, k] >= limit).any())
    assert alarms / 2000 <= 0.01 + 2 * math.sqrt(0.01 * 0.99 / 2000)
