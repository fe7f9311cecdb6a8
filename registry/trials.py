"""How a trial starts and ends in the registry: one challenger at most, whatever races or dies.

As with promotions, whoever writes reads again (docs/decisions/0025-trials.md). The alias `challenger` is one row, and
the trial one tag of its version. A start writes the tag, and from that single write on everybody carries it through; an
end writes the outcome into the tag, likewise, or for a rollback into one of its own, which counts for more. Alias,
stage and description follow.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from recsys.tracking.retry import retry_mlflow
from registry.policy import Decision
from registry.transitions import REPLACED, State, now, read_state, roll_back, say, set_stage, set_tag, settle
from registry.trial_state import CHALLENGER, EXTENDED, FAILED, TRIAL, Trial, pack_trial, read_trial
from registry.versions import ON_TRIAL, STANDING, TRIAL_ENDED, Version

STAGING, ARCHIVED = "Staging", "Archived"
_ROUNDS = 20
_SAID = {
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "no_difference": "no difference was found",
    "mismatch": "the arms had not the users that they should have: nothing was decided",
    "passed": "nothing wrong was found beside the champion",
    "stopped": "stopped",
    "void": "void, since the champion changed",
}


def start(
    name: str, choose: Callable[[State], Decision], make: Callable[[Decision, State], Trial], by: str
) -> tuple[Decision, Trial | None]:
    """Put the version that `choose` would promote on trial; the decision, and the trial that runs, if one does.

    Without a champion there is nothing to compare with, and the version is promoted. Where its trial runs already, that
    one goes on.

    Args:
        make: the trial of a decision, with an id of its own.

    Raises:
        InputError: if another version is on trial, or was put on trial at the same time.
    """
    settle(name, lambda state: Decision(state.champion, state.champion, "as it stands"), by)
    for attempt in range(_ROUNDS):
        tidy(name, by)
        state = read_state(name)
        decision = choose(state)
        if state.champion is None:
            return settle(name, choose, by)[0], None
        running = state.trial
        winner = state.find(decision.winner) if decision.changes else None
        if winner is None:
            return decision, running
        if running is not None and running.version != winner.number:
            raise InputError(
                f"version {running.version} of {name!r} is on trial {running.mode} since {running.started[:16]}, and "
                f"version {winner.number} would be another challenger; wait for its end, or stop it: "
                "mlflow run . -e trial -P action=stop"
            )
        if running is not None and is_settled(state):
            return decision, running
        if not read_state(name).is_as(state):
            continue
        if running is None:
            set_tag(winner, TRIAL, pack_trial(make(decision, state)))
        _announce(read_state(name))
        time.sleep(random.uniform(0, 0.02) * attempt)
        # The next round finds it, or finds that somebody else's alias was written later.
    raise InputError(f"model {name!r} did not come to rest in {_ROUNDS} attempts: start its trial again alone")


def is_settled(state: State) -> bool:
    """Whether alias, tags and stages of trials say what runs, and no more."""
    running = state.trial
    if _leftovers(state) or _is_owed(state):
        return False
    if running is None:
        return not _is_stale(state)
    version = state.find(running.version)
    is_announced = version is not None and version.stage == STAGING and _is_announced(version)
    return is_announced and state.challenger == running.version


def tidy(name: str, by: str) -> State:
    """Carry through what a start or an end left half done; the state after it."""
    state = read_state(name)
    for _ in range(_ROUNDS):
        if is_settled(state):
            return state
        if _is_owed(state):
            settle(name, lambda found: Decision(found.champion, found.champion, "its trial ended so"), by)
            state = read_state(name)
        _announce(state)
        for version in _leftovers(state):
            _close(state, version, by)
        state = read_state(name)
        if state.trial is None and _is_stale(state):
            _remove_alias(name)
            state = read_state(name)
    return state


def end(name: str, trial: Trial, outcome: str, why: str, by: str) -> Trial | None:
    """End a trial; what became of it: this outcome, that of somebody who was earlier, or None where it is gone.

    A promotion moves the challenger to Production; any other outcome leaves the champion there.
    """
    state = read_state(name)
    running = state.trial
    if running is None or running.id != trial.id:
        tidy(name, by)
        found = read_trial(read_state(name).find(trial.version))
        return found if found is not None and found.id == trial.id else None
    version = state.find(trial.version)
    assert version
    if outcome == "promoted":
        set_tag(version, REPLACED, str(trial.champion))
    if outcome == "rolled_back":
        set_tag(version, FAILED, json.dumps({"trial": running.id, "why": why, "ended": now()}))
    else:
        set_tag(version, TRIAL, pack_trial(replace(running, outcome=outcome, why=why, ended=now())))
    tidy(name, by)
    found = read_trial(read_state(name).find(trial.version))
    if found is not None and found.outcome == "rolled_back" and read_state(name).champion == trial.version:
        # Another server promoted it in the same instant: a guard counts for more.
        roll_back(name, trial.champion, by, lambda *_: None)
    return found if found is not None and found.id == trial.id else None


def extend(name: str, users: int | None, days: float | None) -> Trial:
    """Let the trial that runs go on for more users or days; raises InputError where none runs, and for fewer."""
    state = read_state(name)
    running = find_or_raise_trial(state)
    for what, asked, given in (
        ("users", users, running.plan.trial_users),
        ("days", days, running.plan.trial_days),
    ):
        if asked is not None and asked < given:
            raise InputError(
                f"parameter {what!r}: extend needs at least the {given:,g} {what} that the trial of version "
                f"{running.version} has, got {asked:,g}; to end it now: mlflow run . -e trial -P action=stop"
            )
    version = state.find(running.version)
    assert version
    content = {"trial": running.id, "users": users or running.plan.trial_users, "days": days or running.plan.trial_days}
    set_tag(version, EXTENDED, json.dumps(content))
    return find_or_raise_trial(read_state(name))


def find_or_raise_trial(state: State) -> Trial:
    """The trial that runs; raises InputError where none does."""
    if state.trial is None:
        raise InputError(f"no version of {state.name!r} is on trial; start one: mlflow run . -e promote -P trial=0.1")
    return state.trial


def past_trials(state: State) -> list[Trial]:
    """The last trial of each version that had one, the oldest first."""
    found = [trial for version in state.versions if (trial := read_trial(version)) is not None]
    return sorted(found, key=lambda trial: trial.started)


def _is_announced(version: Version) -> bool:
    return version.tags.get(STANDING, "").startswith(ON_TRIAL)


def _leftovers(state: State) -> list[Version]:
    """Versions that look as if they were on trial, and are not."""
    running = state.trial
    return [
        version
        for version in state.versions
        if version.family is not None
        and (running is None or version.number != running.version)
        and (_is_announced(version) or ((found := read_trial(version)) is not None and not found.outcome))
    ]


def _announce(state: State) -> None:
    """Alias, stage and description of the challenger."""
    running = state.trial
    version = state.find(running.version) if running else None
    if running is None or version is None:
        return
    if state.challenger != version.number:
        retry_mlflow(MlflowClient().set_registered_model_alias)(state.name, CHALLENGER, str(version.number))
    set_stage(version, STAGING)
    if not _is_announced(version):
        say(version, f"{ON_TRIAL}{running.started[:10]}", f" {running.mode}, put there by {running.by}")


def _close(state: State, version: Version, by: str) -> None:
    """Say of a version how its trial ended."""
    found = read_trial(version)
    if found is not None and not found.outcome:
        outcome = "promoted" if version.number == state.champion else "void"
        found = replace(found, outcome=outcome, why=f"{_SAID[outcome]}, as {by} found", ended=now())
        set_tag(version, TRIAL, pack_trial(found))
    if version.stage == STAGING:
        set_stage(version, ARCHIVED)
    if found is not None and _is_announced(version):
        said = f"{_SAID.get(found.outcome, found.outcome)}: {found.why}" if found.why else _SAID[found.outcome]
        say(version, f"{TRIAL_ENDED}{found.ended[:10]}", f": {said}")


def _is_owed(state: State) -> bool:
    """Whether the challenger has become the champion, and not all says so yet."""
    return state.challenger is not None and state.challenger == state.champion and not state.is_settled(state.champion)


def _is_stale(state: State) -> bool:
    """Whether the alias points at a trial that is over; one that a person set on another version is left alone."""
    version = state.find(state.challenger)
    return state.challenger is not None and (version is None or TRIAL in version.tags)


def _remove_alias(name: str) -> None:
    """Where a trial has begun in this instant, its tag stands, and whoever reads next sets the alias again."""
    try:
        retry_mlflow(MlflowClient().delete_registered_model_alias)(name, CHALLENGER)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
