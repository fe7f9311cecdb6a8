"""What promotion does where nothing is to be gained: versions of equal quality, and which of them get to Production.

python -m bench.null_promotions [swaps] [sequences]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.measure import heading, table
from recsys import metrics
from recsys.arrays import Codes, Flags, Floats, Ids
from recsys.evaluation import bootstrap
from registry.policy import Candidate, Decision, Policy, decide

_SWAPS = 600
_SEQUENCES = 10
_VERSIONS = 100
_USERS = 150
_ROWS = 2_000
_FRESH_ROWS = 50_000
_DEFAULT = Policy(beat_bias=False)
_SURE = Policy(beat_bias=False, confidence=0.95)

Rule = Callable[[list[Candidate], int], int]
"""Given all versions so far, the newest last, and the champion: the champion from then on."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of users with a taste: whether they like what they rated, and what all versions know of it."""

    users: Codes
    ids: Ids
    liked: Flags
    known: Floats

    def scores(self, random: np.random.Generator) -> Floats:
        """Those of a version; all are equally good, and err independently of each other."""
        return self.known + random.normal(0, 0.5, len(self.known))


def make_rows(random: np.random.Generator, rows: int = _ROWS, users: int = _USERS) -> Rows:
    """Rows to measure on."""
    of_row = random.integers(0, users, rows)
    taste = random.normal(0, 0.7, users)[of_row] + random.normal(size=rows)
    liked = taste + random.normal(size=rows) > 0
    ids = np.array([f"user {number}" for number in range(users)], object)
    return Rows(of_row, ids, liked, taste + random.normal(0, 0.5, rows))


def candidate(number: int, rows: Rows, score: Floats, digest: str) -> Candidate:
    """A version, measured on rows."""
    measured = {"auc": metrics.auc_by_ranks(rows.liked, score), "rmse": 0.9}
    replicates = bootstrap.replicate_auc(rows.users, rows.ids, rows.liked, score, test_digest=digest)
    return Candidate(number, "equal", "None", measured, replicates=replicates)


def _decide(candidates: list[Candidate], champion: int, policy: Policy) -> Decision:
    return decide(candidates, champion=champion, policy=policy, scale=(1, 5), test_rows=_ROWS)


def by_default(candidates: list[Candidate], champion: int) -> int:
    """The highest AUC."""
    return _decide(candidates, champion, _DEFAULT).winner or champion


def corrected(candidates: list[Candidate], champion: int) -> int:
    """The highest AUC whose interval, corrected for all that were compared, is above zero."""
    return _decide(candidates, champion, _SURE).winner or champion


def uncorrected(candidates: list[Candidate], champion: int) -> int:
    """The highest AUC whose interval is above zero, each as if it was the only one."""
    assessed = _decide(candidates, champion, _DEFAULT).assessments
    sure = [a.candidate for a in assessed if a.comparison is not None and a.comparison.low > 0]
    return max(sure, key=lambda c: c.metrics["auc"]).number if sure else champion


RULES: dict[str, Rule] = {
    "default (highest AUC)": by_default,
    "confidence=0.95, not corrected": uncorrected,
    "confidence=0.95 (corrected for the number compared)": corrected,
}


def measure_swaps(swaps: int) -> dict[str, float]:
    """How often a version replaces one that is as good, each time on a test set of its own."""
    promoted = dict.fromkeys(RULES, 0)
    for seed in range(swaps):
        random = np.random.default_rng(seed)
        rows = make_rows(random)
        pair = [candidate(number, rows, rows.scores(random), f"{seed:x}") for number in (1, 2)]
        for name, rule in RULES.items():
            promoted[name] += rule(pair, 1) == 2
    return {name: count / swaps for name, count in promoted.items()}


@dataclass(frozen=True)
class Sequence:
    """What came of versions on one test set: promotions, and the last champion's gain over the first, in AUC."""

    promotions: int
    claimed: float
    fresh: float


def measure_sequence(seed: int, versions: int, *, at_once: bool) -> dict[str, Sequence]:
    """Equal versions on one test set, decided on one after the other, or all at once."""
    random = np.random.default_rng([seed, 1])
    rows, fresh = make_rows(random), make_rows(random, _FRESH_ROWS, 25 * _USERS)
    candidates = [candidate(number, rows, rows.scores(random), f"{seed:x}") for number in range(1, versions + 1)]
    anew = [metrics.auc_by_ranks(fresh.liked, fresh.scores(random)) for _ in candidates]
    found = {}
    for name, rule in RULES.items():
        champion, promotions = 1, 0
        for newest in range(versions if at_once else 2, versions + 1):
            chosen = rule(candidates[:newest], champion)
            promotions += chosen != champion
            champion = chosen
        claimed = candidates[champion - 1].metrics["auc"] - candidates[0].metrics["auc"]
        found[name] = Sequence(promotions, claimed, anew[champion - 1] - anew[0])
    return found


def sequences_table(sequences: int, *, at_once: bool) -> str:
    """The means over several test sets, by rule."""
    found = [measure_sequence(seed, _VERSIONS, at_once=at_once) for seed in range(sequences)]
    rows = []
    for name in RULES:
        of_rule = [one[name] for one in found]
        promotions = [one.promotions for one in of_rule]
        rows.append(
            [
                name,
                f"{np.mean(promotions):.1f} ({min(promotions)} to {max(promotions)})",
                f"{np.mean([one.claimed for one in of_rule]):+.4f}",
                f"{np.mean([one.fresh for one in of_rule]):+.4f}",
            ]
        )
    return table(["rule", "promotions", "gain that was claimed", "the same on fresh users"], rows)


def main() -> None:
    """Measure all and print Markdown."""
    given = [int(text) for text in sys.argv[1:]]
    swaps, sequences = given + [_SWAPS, _SEQUENCES][len(given) :]
    print(heading("Promotions where nothing is to be gained", ["numpy", "scipy"]))
    print(f"{swaps} swaps, each of two equal versions on a test set of {_ROWS:,} rows of {_USERS} users:\n")
    print(table(["rule", "promoted"], [[name, f"{share:.1%}"] for name, share in measure_swaps(swaps).items()]))
    for at_once, said in ((False, "one after the other"), (True, "in one decision")):
        print(f"{_VERSIONS} equal versions {said}, on one test set; means of {sequences} test sets:\n")
        print(sequences_table(sequences, at_once=at_once))


if __name__ == "__main__":
    main()
