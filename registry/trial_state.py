"""A trial as the registry keeps it: a tag of the challenger, read and written as a whole."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from recsys.experiments.plan import Plan
from registry.versions import Version

TRIAL = "trial"  # on a version: its trial, with `outcome` once it is over
EXTENDED = "trial_extended"  # on a version: {"trial": id, "users": …, "days": …}
FAILED = "trial_failed"  # on a version: {"trial": id, "why": …, "ended": …}; no later outcome overwrites it
CHALLENGER = "challenger"
BARRING = ("rolled_back", "no_difference")
"""Outcomes after which a version is tried again only where it is asked for."""


@dataclass(frozen=True)
class Trial:
    """A challenger against the champion of its start."""

    id: str
    version: int
    champion: int
    share: float | None  # of users; None: shadow mode
    started: str  # by the clock of who started it
    by: str
    like_threshold: float | None = None
    plan: Plan = field(default_factory=Plan)
    outcome: str = ""  # empty while it runs
    why: str = ""
    ended: str = ""

    @property
    def mode(self) -> str:
        """The trial in words: who sees the challenger."""
        return "in shadow mode" if self.share is None else f"with {100 * self.share:.4g}% of the users"


def pack_trial(trial: Trial) -> str:
    """The tag's text."""
    content = {key: value for key, value in trial.__dict__.items() if key not in ("version", "plan")}
    changed = trial.plan.model_dump(exclude_defaults=True)
    return json.dumps(content | {"plan": changed})


def read_trial(version: Version | None) -> Trial | None:
    """The trial of a version, running or over; None where it had none, or one that this release cannot read."""
    if version is None or TRIAL not in version.tags:
        return None
    try:
        content = json.loads(version.tags[TRIAL])
        plan = Plan.model_validate(content.pop("plan"))
        longer = json.loads(version.tags.get(EXTENDED, "{}"))
        if longer.get("trial") == content["id"]:
            plan = plan.model_copy(update={f"trial_{name}": longer[name] for name in ("users", "days")})
        failed = json.loads(version.tags.get(FAILED, "{}"))
        if failed.get("trial") == content["id"]:
            content |= {"outcome": "rolled_back", "why": failed["why"], "ended": failed["ended"]}
        return Trial(version=version.number, plan=plan, **content)
    except (ValueError, TypeError, KeyError):
        return None


def find_running(versions: Sequence[Version], challenger: int | None, champion: int | None) -> Trial | None:
    """The trial that runs against who is champion now, half-done changes thought through to their end.

    Of the version under the alias; where that is none, of the first that was begun, whose alias is still to come.
    """
    begun = [
        trial
        for version in versions
        if (trial := read_trial(version)) is not None
        and not trial.outcome
        and trial.champion == champion
        and trial.version != champion
    ]
    chosen = [trial for trial in begun if trial.version == challenger]
    return min(chosen or begun, key=lambda trial: (trial.started, trial.version), default=None)


def find_promoted(versions: Sequence[Version], challenger: int | None, champion: int | None) -> int | None:
    """The challenger whose trial ended in its promotion, where that has not been carried out yet."""
    found = read_trial(next((version for version in versions if version.number == challenger), None))
    if found is None or found.outcome != "promoted" or found.champion != champion:
        return None
    return found.version
