"""How often trials end wrongly, how soon they end rightly: simulated users, a look after every event.

python -m bench.trials [null trials] [broken and better challengers]

The statistics are the functions that the judge uses; only the users are invented. Each has a like rate of their own,
comes back, and rates again, so that a user's value changes while it is looked at.
"""

import math
import sys
from collections.abc import Callable

import numba
import numpy as np

from bench.measure import heading, table
from recsys.arrays import Array, Floats
from recsys.experiments import events, sample_ratio
from recsys.experiments.differences import DEVIATION, MEAN, boundary, mixture_boundary
from recsys.experiments.judging import GUARDS
from recsys.experiments.plan import Plan
from recsys.experiments.precision import variances

PLAN = Plan()
NULL_TRIALS, TRIALS = 10_000, 1_000
EVENTS = 4 * PLAN.trial_users  # until it ends undecided
_BETTER = 4  # times as many better challengers: the time that 80% of them need is what is asked about
_PACKAGES = ("numpy", "scipy", "numba")
_NEW = 0.25  # probability that an event is a new user's: four events a user
_TASTE = 2.6  # of the Beta distribution of like rates around one half: standard deviation 0.2
_POWER = 0.8
_LOOKS = 30  # of the z-test
_BROKEN_REQUESTS = 2_000
_ACTIVE = 2_000  # users who ask
_LIMIT = -math.log(GUARDS["errors"] * PLAN.trial_guard_alpha)  # that of latency too


_boundary, _variances = numba.njit(mixture_boundary), numba.njit(variances)


@numba.njit
def _null_trial(events, share, seed, alpha, mean, deviation, least):  # type: ignore[no-untyped-def]
    """Whether a trial of equal versions is ever promoted or rolled back, and wrongly decided by some z-tests at 5%.

    An event is of a new user, or of one who has rated before, whose value then changes. The judge's sums are made anew
    whenever there are 10% more events, and between that brought forward.
    """
    np.random.seed(seed)
    challenger = np.zeros(events, np.bool_)
    rates, likes, ratings = np.zeros(events), np.zeros(events), np.zeros(events)
    sums, plain = np.zeros((5, 2)), np.zeros((3, 2))
    taste, noise, again = 1.0, 0.0, 0.0
    known, up, down, peeked = 0, False, False, False
    for event in range(1, events + 1):
        user = known
        if known and np.random.random() >= _NEW:
            user = int(np.random.random() * known)
        if user == known:
            known += 1
            challenger[user] = np.random.random() < share
            rates[user] = np.random.beta(_TASTE, _TASTE)
        else:
            _count(sums, plain, challenger[user], likes[user], ratings[user], taste, noise, -1.0)
        likes[user] += np.random.random() < rates[user]
        ratings[user] += 1
        if event >= again:
            again = 1.1 * event
            k, mean_ = ratings[:known], likes[:known] / ratings[:known]
            taste, noise = _variances(k, mean_, k * mean_ * (1 - mean_), challenger[:known])
            sums[:], plain[:] = 0.0, 0.0
            for one in range(known):
                _count(sums, plain, challenger[one], likes[one], ratings[one], taste, noise, 1.0)
        else:
            _count(sums, plain, challenger[user], likes[user], ratings[user], taste, noise, 1.0)
        if min(plain[0]) < least:
            continue
        if not (up or down):
            difference, spread = 0.0, 0.0
            for arm in (0, 1):
                n, (w, wx, w2, w2x, w2xx) = plain[0, arm], sums[:, arm]
                found = wx / w
                difference += found if arm else -found
                spread += (w2xx - 2 * found * w2x + found**2 * w2) / w**2 * n / (n - 1)
            if difference**2 > 4 * spread:  # else it is far from the boundary
                reach = _boundary(1 / spread, alpha, mean, deviation) * spread
                up, down = difference > reach, -difference > reach
        if event % (events // _LOOKS) == 0:
            means = plain[1] / plain[0]
            error = np.sqrt(np.sum((plain[2] / plain[0] - means**2) / (plain[0] - 1)))
            peeked |= abs(means[1] - means[0]) > 1.96 * error
    return up, down, peeked


@numba.njit
def _count(sums, plain, challenger, likes, ratings, taste, noise, sign):  # type: ignore[no-untyped-def]
    """Add a user, or with -1 take one away."""
    arm, value, weight = int(challenger), likes / ratings, 1 / (taste + noise / ratings)
    one, square = sign * value, weight * weight
    plain[0, arm] += sign
    plain[1, arm] += one
    plain[2, arm] += one * value
    sums[0, arm] += sign * weight
    sums[1, arm] += one * weight
    sums[2, arm] += sign * square
    sums[3, arm] += one * square
    sums[4, arm] += one * value * square


def moments(counts: Floats, sums: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """The difference of two arms' means and its variance, from (2, …) sums."""
    n = np.maximum(counts, 2)
    means = sums / n
    spread = (np.maximum(squares / n - means**2, 0) / (n - 1)).sum(0)
    return means[1] - means[0], np.maximum(spread, 1e-12)


def null_trials(trials: int, share: float, random: np.random.Generator) -> dict[str, float]:
    """The shares of trials of equal versions that are ever promoted, or rolled back by their rewards."""
    said = PLAN.trial_alpha, MEAN * PLAN.trial_gain, DEVIATION * PLAN.trial_gain, PLAN.trial_least
    seeds = random.integers(2**31, size=trials)
    found = np.array([_null_trial(EVENTS, share, seed, *said) for seed in seeds])
    return dict(zip(("promoted", "rolled back", "daily z-test"), found.mean(0).tolist(), strict=True))


def better_trials(trials: int, gain: float, most: int, random: np.random.Generator) -> tuple[Array, float]:
    """After how many users each trial of a better version is promoted (`most` + 1: not), and the variance of a user.

    A user's four ratings come at once, as in the fixed test that it is compared with.
    """
    ended, spreads = np.full(trials, most + 1), []
    together = max(1, 1_000_000 // most)
    for first in range(0, trials, together):
        size = min(together, trials - first)
        arm = random.random((size, most)) < 0.5
        rates = np.clip(random.beta(_TASTE, _TASTE, (size, most)) + gain * arm, 0, 1)
        values = random.binomial(4, rates) / 4
        spreads.append(values[~arm].var())
        of_arm = np.stack([~arm, arm])
        sums = [np.cumsum(of_arm * values**power, axis=2) for power in range(3)]
        difference, spread = moments(*sums)
        low = difference - boundary(1 / spread, PLAN.trial_alpha, PLAN.trial_gain) * spread
        promoted = (low > 0) & (sums[0].min(0) >= PLAN.trial_least)
        ended[first : first + size] = np.where(promoted.any(1), promoted.argmax(1) + 1, most + 1)
    return ended, float(np.mean(spreads))


def fixed_users(variance: float, gain: float, power: float) -> int:
    """The users of a one-sided z-test of the same level and power, both arms together."""
    from scipy.special import ndtri

    z = ndtri(1 - PLAN.trial_alpha) + ndtri(power)
    return round(4 * variance * (z / gain) ** 2)


def broken_trials(
    trials: int, share: float, is_event: Callable[[Array, int], Array], most: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """After how many of the challenger's requests, and of all, a guard rolls it back; `most` + 1: not.

    Args:
        is_event: whether each request meets the event, from its arm; and the number of the trial.
    """
    own, all_ = np.full(trials, most + 1), np.full(trials, 0)
    evidence: dict[tuple[int, int], float] = {}
    for trial in range(trials):
        length = round(most / share * 1.1)
        user = random.integers(_ACTIVE, size=length)
        arm = (random.random(_ACTIVE) < share)[user]
        requests = np.cumsum(arm)
        meets = np.flatnonzero(is_event(arm, trial))
        meets = meets[np.sort(np.unique(user[meets], return_index=True)[1])]  # the first of each user
        met = [0, 0]
        for at in meets:
            met[int(arm[at])] += 1
            key = met[0], met[1]
            if key not in evidence:
                evidence[key] = events.log_evidence(*key, share)
            if evidence[key] >= _LIMIT:
                own[trial], all_[trial] = min(requests[at], most + 1), at + 1
                break
    return own, all_


def with_errors(champion: float, challenger: float, random: np.random.Generator) -> Callable[[Array, int], Array]:
    """Requests that fail, at these rates."""
    return lambda arm, _: random.random(len(arm)) < np.where(arm, challenger, champion)


def with_latency(extra: float, of: float, random: np.random.Generator) -> Callable[[Array, int], Array]:
    """Requests beyond the limit, where a share `of` the challenger's takes `extra` seconds longer."""

    def slow(arm: Array, _: int) -> Array:
        seconds = random.lognormal(math.log(0.003), 0.5, len(arm))
        seconds += np.where(arm & (random.random(len(arm)) < of), extra, 0)
        first = np.flatnonzero(~arm)[:200]
        limit = np.quantile(seconds[first], 0.99) + PLAN.trial_latency / 1000
        return (seconds > limit) & (np.arange(len(arm)) > first[-1])

    return slow


def mismatches(trials: int, planned: float, real: float, users: int, random: np.random.Generator) -> Array:
    """After how many users a split that is not as planned is found; `users` + 1: not."""
    found = np.full(trials, users + 1)
    for first in range(0, trials, 200):
        size = min(200, trials - first)
        ones = np.cumsum(random.random((size, users)) < real, axis=1)
        counts = np.stack([np.arange(1, users + 1) - ones, ones], axis=-1)
        beyond = sample_ratio.log_evidence(counts, (1 - planned, planned)) >= math.log(1000)
        found[first : first + size] = np.where(beyond.any(1), beyond.argmax(1) + 1, users + 1)
    return found


def main() -> None:
    """Print the tables of docs/trials.md."""
    null, trials = (int(given) for given in (*sys.argv[1:], *(str(NULL_TRIALS), str(TRIALS))[len(sys.argv) - 1 :]))
    random = np.random.default_rng(16)
    print(heading(f"Equal versions: {null:,} trials, a look after each of {EVENTS:,} events", _PACKAGES))
    rows = []
    for share in (0.5, 0.1):
        found = null_trials(null, share, random)
        rows.append([f"{share:g}", *(f"{value:.2%}" for value in found.values())])
        print(rows[-1], file=sys.stderr, flush=True)
    print(table(["share", "falsely promoted", "falsely rolled back", "z-test, 30 looks"], rows), flush=True)

    print(heading(f"A gain, where {PLAN.trial_gain:g} is expected: {_BETTER * trials:,} trials", _PACKAGES))
    rows = []
    for part, most in ((1.0, 25_000), (2.0, 8_000), (0.5, 90_000)):
        gain = part * PLAN.trial_gain
        ended, variance = better_trials(_BETTER * trials if part >= 1 else trials, gain, most, random)
        for power in (0.5, _POWER, 0.9):
            fixed, own = fixed_users(variance, gain, power), int(np.quantile(ended, power))
            mean = float(np.minimum(ended, own).mean())
            ratios = f"{own:,}", f"{own / fixed:.2f}", f"{mean:,.0f}", f"{mean / fixed:.2f}"
            rows.append([f"{gain:g}", f"{power:.0%}", f"{fixed:,}", *ratios])
    print(table(["gain", "power", "fixed test", "at most", "ratio", "on average", "ratio"], rows), flush=True)

    print(
        heading(
            f"Broken challengers: {trials:,} trials, rolled back within {_BROKEN_REQUESTS:,} of their requests",
            _PACKAGES,
        )
    )
    rows = []
    faults = {
        "1% errors": with_errors(0.0, 0.01, random),
        "+20 ms for all": with_latency(0.02, 1.0, random),
        "+20 ms for 2%": with_latency(0.02, 0.02, random),
        "none, 1% errors in both": with_errors(0.01, 0.01, random),
    }
    for name, fault in faults.items():
        for share in (0.1, 0.5):
            own, all_ = broken_trials(trials, share, fault, _BROKEN_REQUESTS, random)
            hit = own <= _BROKEN_REQUESTS
            median = f"{np.median(own[hit]):,.0f}, {np.median(all_[hit]):,.0f}" if hit.any() else "-"
            rows.append([name, f"{share:g}", f"{hit.mean():.1%}", median])
    print(table(["fault", "share", "rolled back", "median requests: its own, all"], rows), flush=True)

    print(heading(f"Sample ratio: {trials:,} trials of 5,000 users, planned 50/50", _PACKAGES))
    rows = []
    for real in (0.45, 0.5):
        found = mismatches(trials, 0.5, real, 5_000, random)
        hit = found <= 5_000
        rows.append(
            [f"{1 - real:.0%}/{real:.0%}", f"{hit.mean():.1%}", f"{np.median(found[hit]):,.0f}" if hit.any() else "-"]
        )
    print(table(["real", "found", "median users"], rows), flush=True)


if __name__ == "__main__":
    main()
