"""What a trial's evidence says: guards first, then whether users fell into arms as they should, then the reward.

Pure: the same evidence gives the same verdict, whoever asks and however often.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from recsys.experiments import events, sample_ratio
from recsys.experiments.differences import NOTHING, Interval, Summary, interval
from recsys.experiments.plan import Plan

Outcome = Literal["promoted", "rolled_back", "no_difference", "mismatch", "passed"]
GUARDS = {"errors": 0.4, "latency": 0.4, "empty_lists": 0.1, "fallback": 0.1}
"""The guards, and the part of `trial_guard_alpha` that each may spend: what hurts at once has more."""
FEWEST_WATCHED = 100
"""Lists of the challenger that are held against the champion's times before rewards promote it."""
_MISMATCH_ALPHA = 0.001
_SAID = {
    "errors": "answered with an error",
    "latency": "were answered slowly",
    "empty_lists": "were given an empty list",
    "fallback": "were given what is popular",
}


class Beside(NamedTuple):
    """Shadow mode: how the challenger's lists differ from the champion's, over requests that both answered."""

    same: float  # the share of their items that the champion's has too
    seconds: tuple[float, float]  # mean time, of champion and challenger


@dataclass(frozen=True)
class Evidence:
    """What was seen since the trial began, by arm: champion, challenger.

    `events` counts users, each by the first event of its kind, in shadow mode only those that one version alone had.
    """

    lists: tuple[int, int]
    users: tuple[int, int]
    rewards: tuple[Summary, Summary]
    events: dict[str, tuple[int, int]]
    slow: float | None = None  # seconds above which a list is slow; None while the champion's are being measured
    watched: int = 0  # lists of the challenger that were held against it
    unanswered: str = ""  # why the challenger cannot answer at all
    beside: Beside | None = None


@dataclass(frozen=True)
class Guard:
    """One guard: users by arm who met the event, and how sure it is that the challenger is to blame."""

    name: str
    champion: int
    challenger: int
    log_evidence: float
    limit: float

    @property
    def failed(self) -> bool:
        """Whether the evidence is beyond the limit."""
        return self.log_evidence >= self.limit


@dataclass(frozen=True)
class Verdict:
    """What is to be done now; `outcome` None: go on."""

    outcome: Outcome | None
    reason: str
    guards: tuple[Guard, ...]
    interval: Interval
    mismatch: float  # log evidence of a mismatch, above `mismatch_limit`: found
    mismatch_limit: float

    @property
    def mismatched(self) -> bool:
        """Whether the arms have not the users that they should."""
        return self.mismatch >= self.mismatch_limit


def judge(plan: Plan, share: float | None, evidence: Evidence, days: float, *, mismatched: bool = False) -> Verdict:
    """The verdict on a trial.

    Args:
        share: of users that see the challenger; None in shadow mode.
        days: that it has run by the judging server's clock.
        mismatched: a mismatch was found at an earlier look.
    """
    guards = _guards(plan, share, evidence)
    found = NOTHING
    mismatch, limit = 0.0, math.log(plan.trial_servers / _MISMATCH_ALPHA)
    if share is not None:
        mismatch = float(sample_ratio.log_evidence(evidence.users, (1 - share, share)))
        mismatch = max(mismatch, limit) if mismatched else mismatch
        found = interval(
            *evidence.rewards,
            alpha=plan.trial_alpha / plan.trial_servers,
            gain=plan.trial_gain,
            least_users=plan.trial_least,
        )
    outcome, reason = _decide(plan, share, evidence, days, guards, found, mismatch >= limit)
    return Verdict(outcome, reason, guards, found, mismatch, limit)


def _guards(plan: Plan, share: float | None, evidence: Evidence) -> tuple[Guard, ...]:
    found = []
    for name, part in GUARDS.items():
        limit = math.log(plan.trial_servers / (part * plan.trial_guard_alpha))
        champion, challenger = evidence.events.get(name, (0, 0))
        ratio = plan.trial_fallback if name == "fallback" else 1.0
        # In shadow mode both answer the same request: that one alone meets the event is as probable either way.
        value = events.log_evidence(champion, challenger, 0.5 if share is None else share, ratio)
        found.append(Guard(name, champion, challenger, value, limit))
    return tuple(found)


def _decide(
    plan: Plan,
    share: float | None,
    evidence: Evidence,
    days: float,
    guards: tuple[Guard, ...],
    found: Interval,
    mismatched: bool,
) -> tuple[Outcome | None, str]:
    if evidence.unanswered:
        return "rolled_back", f"the challenger cannot answer: {evidence.unanswered}"
    failed = [guard for guard in guards if guard.failed]
    if failed:
        return "rolled_back", "; ".join(_blame(guard, evidence) for guard in failed)
    ended = _ended(plan, share, evidence, days)
    if mismatched:
        seen = f"{evidence.users[0]:,} and {evidence.users[1]:,} users"
        said = f"the arms have {seen}, which a share of {share:g} does not explain: nothing is decided by rewards"
        return ("mismatch", f"{said}; {ended}") if ended else (None, said)
    if share is None:
        said = f"{evidence.lists[1]:,} lists compared, nothing wrong with the challenger's{_differing(evidence.beside)}"
        return ("passed", f"{said}; {ended}") if ended else (None, said)
    bounds = f"{found.low:+.4f} to {found.high:+.4f}"
    said = f"difference in {plan.trial_reward} a user {found.difference:+.4f} ({bounds})"
    if found.low > -plan.trial_margin:
        least = f"the margin -{plan.trial_margin:g}" if plan.trial_margin else "zero"
        said = f"{said}, surely above {least}"
        if evidence.watched >= FEWEST_WATCHED or ended:
            return "promoted", said
        return None, f"{said}; of {FEWEST_WATCHED} lists whose time must be watched before, it has {evidence.watched}"
    if found.high < 0:
        return "rolled_back", f"{said}, surely below zero"
    if math.isnan(found.difference):
        few = f"{evidence.rewards[0].users:,} and {evidence.rewards[1].users:,} users with a reward"
        said = f"{few}, too few to compare by ({plan.trial_least} each are needed)"
    return ("no_difference", f"{said}; {ended}") if ended else (None, said)


def _ended(plan: Plan, share: float | None, evidence: Evidence, days: float) -> str:
    """Why there is no more waiting; empty where there is."""
    if share is None:
        count, what = evidence.lists[1], "lists"
    else:
        count, what = evidence.rewards[0].users + evidence.rewards[1].users, "users with a reward"
    if count >= plan.trial_users:
        return f"{count:,} {what} are the {plan.trial_users:,} that it was given"
    if days >= plan.trial_days:
        return f"its {plan.trial_days:g} days are over"
    return ""


def _differing(beside: Beside | None) -> str:
    if beside is None:
        return ""
    champion, challenger = (1000 * seconds for seconds in beside.seconds)
    return (
        f"; {beside.same:.0%} of their items are in the champion's too, and they take {challenger:.1f} ms where the "
        f"champion's take {champion:.1f}"
    )


def _blame(guard: Guard, evidence: Evidence) -> str:
    limit = f" (slower than {1000 * evidence.slow:.0f} ms)" if guard.name == "latency" and evidence.slow else ""
    return (
        f"guard {guard.name}: {guard.challenger} users of the challenger's and {guard.champion} of the champion's "
        f"{_SAID[guard.name]}{limit}"
    )
