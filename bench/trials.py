"""How often trials end wrongly, how soon they end rightly: simulated users, a look after every event.

python -m bench.trials [null trials] [broken and better challengers]

The statistics are the functions that the judge uses; only the users are invented. Each has a like rate of their own,
comes back, and rates again, so that a user's value changes while it is looked at.
"""

import math
import sys
from collections.abc import Callable

import numpy as np

from bench.measure import heading, table
from recsys.arrays import Array, Floats
from recsys.experiments import events, sample_ratio
from recsys.experiments.differences import boundary
from recsys.experiments.judging import GUARDS
from recsys.experiments.plan import Plan

PLAN = Plan()
NULL_TRIALS, TRIALS = 10_000, 1_000
EVENTS = 12_000
_PACKAGES = ("numpy", "scipy")
_CHUNK = 1_000
_NEW = 0.25  # probability that an event is a new user's: four events a user
_TASTE = 2.6  # of the Beta distribution of like rates around one half: standard deviation 0.2
_POWER = 0.8
_BROKEN_REQUESTS = 2_000
_ACTIVE = 2_000  # users who ask
_LIMIT = -math.log(GUARDS["errors"] * PLAN.trial_guard_alpha)  # that of latency too


class Users:
    """The users of many trials at once, (trials, users): arm, likes and ratings so far."""

    def __init__(self, trials: int, most: int, share: float, random: np.random.Generator) -> None:
        self.arms = random.random((trials, most)) < share
        self.rates = random.beta(_TASTE, _TASTE, (trials, most)).astype(np.float32)
        self.likes, self.ratings = (np.zeros((trials, most), np.float32) for _ in range(2))
        self.known = np.zeros(trials, np.int64)
        self.counts, self.sums, self.squares = (np.zeros((2, trials)) for _ in range(3))
        self._rows = np.arange(trials)
        self._most = most

    def rate(self, random: np.random.Generator) -> None:
        """One event in every trial: of a new user, or of one who has rated before."""
        rows, trials = self._rows, len(self._rows)
        is_new = (random.random(trials) < _NEW) & (self.known < self._most) | (self.known == 0)
        user = np.where(is_new, self.known, (random.random(trials) * self.known).astype(np.int64))
        self.known += is_new
        arm = self.arms[rows, user].astype(np.int64)
        ratings = self.ratings[rows, user]
        before = np.where(is_new, 0.0, self.likes[rows, user] / np.maximum(ratings, 1))
        liked = random.random(trials) < self.rates[rows, user]
        self.likes[rows, user] += liked
        self.ratings[rows, user] = ratings + 1
        after = self.likes[rows, user] / (ratings + 1)
        self.counts[arm, rows] += is_new
        self.sums[arm, rows] += after - before
        self.squares[arm, rows] += after**2 - before**2

    def bounds(self) -> tuple[Floats, Floats, Floats]:
        """Difference and its two bounds, (trials,), infinite where users are too few."""
        difference, spread = moments(self.counts, self.sums, self.squares)
        reach = boundary(1 / spread, PLAN.trial_alpha, PLAN.trial_gain) * spread
        reach = np.where(self.counts.min(0) >= PLAN.trial_least, reach, np.inf)
        return difference, difference - reach, difference + reach


def moments(counts: Floats, sums: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """The difference of two arms' means and its variance, from (2, …) sums."""
    n = np.maximum(counts, 2)
    means = sums / n
    spread = (np.maximum(squares / n - means**2, 0) / (n - 1)).sum(0)
    return means[1] - means[0], np.maximum(spread, 1e-12)


def null_trials(trials: int, share: float, random: np.random.Generator) -> dict[str, float]:
    """The shares of trials of equal versions that are ever promoted, or rolled back by their rewards."""
    promoted = rolled_back = daily = 0
    for first in range(0, trials, _CHUNK):
        size = min(_CHUNK, trials - first)
        users = Users(size, EVENTS // 3, share, random)
        up, down, peeked = (np.zeros(size, np.bool_) for _ in range(3))
        for event in range(EVENTS):
            users.rate(random)
            _, low, high = users.bounds()
            up |= (low > 0) & ~down
            down |= (high < 0) & ~up
            if event % (EVENTS // 30) == EVENTS // 30 - 1:
                found, spread = moments(users.counts, users.sums, users.squares)
                peeked |= np.abs(found) > 1.96 * np.sqrt(spread)
        promoted, rolled_back, daily = promoted + up.sum(), rolled_back + down.sum(), daily + peeked.sum()
    return {"promoted": promoted / trials, "rolled back": rolled_back / trials, "daily z-test": daily / trials}


def better_trials(trials: int, gain: float, most: int, random: np.random.Generator) -> tuple[Array, float]:
    """After how many users each trial of a better version is promoted (`most` + 1: not), and the variance of a user.

    A user's four ratings come at once, as in the fixed test that it is compared with.
    """
    ended, variances = np.full(trials, most + 1), []
    for first in range(0, trials, 100):
        size = min(100, trials - first)
        arm = random.random((size, most)) < 0.5
        rates = np.clip(random.beta(_TASTE, _TASTE, (size, most)) + gain * arm, 0, 1)
        values = random.binomial(4, rates) / 4
        variances.append(values[~arm].var())
        of_arm = np.stack([~arm, arm])
        sums = [np.cumsum(of_arm * values**power, axis=2) for power in range(3)]
        difference, spread = moments(*sums)
        low = difference - boundary(1 / spread, PLAN.trial_alpha, PLAN.trial_gain) * spread
        promoted = (low > 0) & (sums[0].min(0) >= PLAN.trial_least)
        ended[first : first + size] = np.where(promoted.any(1), promoted.argmax(1) + 1, most + 1)
    return ended, float(np.mean(variances))


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
    print(table(["share", "falsely promoted", "falsely rolled back", "z-test, 30 looks"], rows), flush=True)

    print(heading(f"A gain of {PLAN.trial_gain:g}: {trials:,} trials", _PACKAGES))
    most = 25_000
    ended, variance = better_trials(trials, PLAN.trial_gain, most, random)
    rows = []
    for power in (0.5, _POWER, 0.9):
        fixed, own = fixed_users(variance, PLAN.trial_gain, power), int(np.quantile(ended, power))
        mean = float(np.minimum(ended, own).mean())
        rows.append(
            [f"{power:.0%}", f"{fixed:,}", f"{own:,}", f"{own / fixed:.2f}", f"{mean:,.0f}", f"{mean / fixed:.2f}"]
        )
    print(table(["power", "fixed test", "at most", "ratio", "on average", "ratio"], rows), flush=True)

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
