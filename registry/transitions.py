"""Who is in Production, and how that changes: one version, however many promote at once and wherever one dies.

MLflow's registry has no transaction over several rows and no compare-and-set, and over HTTP no lock. So a promotion
writes, reads again, and ends only when what it reads is as decided from what it reads. Whoever wrote last has read
after that, so at rest the registry is as the policy decides (docs/decisions/0008-promotion-converges.md).

The alias is the truth: it is one row, is set first and never removed. Stages and tags follow it.
"""

import random
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from recsys.tracking.retry import retry_mlflow
from registry.policy import PRODUCTION, Decision
from registry.trial_state import CHALLENGER, TRIAL, Trial, find_promoted, find_running
from registry.versions import (
    IN_PRODUCTION,
    MODEL_DESCRIPTION,
    REPLACED_BY,
    ROLLED_BACK,
    STANDING,
    RolledBack,
    Version,
    find_model,
    find_or_raise_version,
    list_versions,
    with_standing,
)

CHAMPION = "champion"
REPLACED = "replaced"  # on a champion: the version it took over from
_ROUNDS = 20


@dataclass(frozen=True)
class State:
    """What the registry says of a model: all its versions by number, and the one that the alias points at."""

    name: str
    versions: tuple[Version, ...]
    alias: int | None
    challenger: int | None = None  # the version that the alias `challenger` points at

    def find(self, number: int | None) -> Version | None:
        """The version of that number."""
        return next((version for version in self.versions if version.number == number), None)

    @property
    def production(self) -> list[int]:
        """The numbers of all versions in the stage Production; more than one only while one is replaced."""
        return [version.number for version in self.versions if version.stage == PRODUCTION]

    @property
    def champion(self) -> int | None:
        """The version that should be in Production as things stand, half-done changes thought through to their end."""
        current, passed = self.alias, set[int]()
        if self.find(current) is None:
            current = max(self.production, default=None)
        won = find_promoted(self.versions, self.challenger, current)
        if won is not None and ROLLED_BACK not in self._tags(won):
            return won  # its trial is decided, and the alias was not moved yet
        while current is not None and current not in passed:
            version = self.find(current)
            if version is None or ROLLED_BACK not in version.tags:
                return current if version else None
            passed.add(current)
            current = RolledBack.of(version.tags[ROLLED_BACK]).to  # the rollback died before it moved the alias
        return None

    @property
    def trial(self) -> Trial | None:
        """The trial that runs."""
        return find_running(self.versions, self.challenger, self.champion)

    def _tags(self, number: int) -> Mapping[str, str]:
        found = self.find(number)
        return found.tags if found else {}

    def is_settled(self, champion: int | None) -> bool:
        """Whether alias, stages and tags all say that this version is the champion."""
        if champion is None:
            return True  # there is nothing to hold on to
        claims = [v.number for v in self.versions if v.tags.get(STANDING, "").startswith(IN_PRODUCTION)]
        barred = ROLLED_BACK in self._tags(champion)
        return self.alias == champion and self.production == [champion] and claims == [champion] and not barred

    def _key(self) -> object:
        rests_on = (ROLLED_BACK, STANDING, TRIAL)
        versions = [(v.number, v.stage, [v.tags.get(key) for key in rests_on]) for v in self.versions]
        return self.alias, self.challenger, versions

    def is_as(self, other: "State") -> bool:
        """Whether nothing has changed that a decision rests on."""
        return self._key() == other._key()


@retry_mlflow
def read_state(name: str) -> State:
    """The registry as it stands; raises InputError if there is no version, or a foreign one is in Production."""
    model = find_model(name)  # before the versions, so that the one it points at is among them
    versions = tuple(list_versions(name)) if model else ()
    aliases = {key.lower(): int(value) for key, value in model.aliases.items()} if model else {}
    state = State(name, versions, aliases.get(CHAMPION), aliases.get(CHALLENGER))
    for version in versions:
        if version.family is None and (version.number == state.alias or version.stage == PRODUCTION):
            raise InputError(
                f"version {version.number} of {name!r} is in Production, but was not registered by recsys (it has no "
                "tag 'family'), and is not touched: take it out of Production, and its alias off, or pass another "
                "model_name"
            )
    return state


def settle(name: str, choose: Callable[[State], Decision], by: str) -> tuple[Decision, bool]:
    """Bring the registry to what `choose` decides from it; returns the decision and whether a half-done change was met.

    `choose` is asked again whenever something has changed meanwhile, and after every change of our own.

    Raises:
        InputError: if others keep changing it to something else; MlflowException if the registry does not answer.
    """
    made: Decision | None = None
    mended = False
    for attempt in range(_ROUNDS):
        state = read_state(name)
        decision = choose(state)
        target = decision.winner if decision.winner is not None else state.champion
        if state.is_settled(target):
            return (made if made and made.winner == target else decision), mended
        if not read_state(name).is_as(state):
            continue
        if decision.changes:
            made = replace(decision, previous=made.previous if made else decision.previous)
        elif made is None:
            mended = True
        _move(state, target, decision.reason, by)
        time.sleep(random.uniform(0, 0.02) * attempt)  # where two keep meeting, one goes ahead
    raise InputError(
        f"model {name!r} did not come to rest in {_ROUNDS} attempts: other promotions, with another policy or test "
        "set, keep changing it; let one of them go on alone and promote again"
    )


def roll_back(name: str, number: int | None, by: str, check: Callable[[Version, State], None]) -> Decision:
    """Put the version before the champion, or the given one, in its place, and bar the champion from coming back.

    Args:
        check: is shown the version to be put back before anything is written, and may raise.

    Raises:
        InputError: if there is no champion, none before it, or the version is unknown, foreign or in place already.
    """
    state = read_state(name)
    champion = state.find(state.champion)
    if champion is None:
        raise InputError(f"model {name!r} has no champion to roll back from; run the entry point promote first")
    target = _before(state, champion) if number is None else _asked(state, champion, number)
    check(target, state)
    decision = describe_rollback(state, target, by)
    set_tag(target, ROLLED_BACK, None)
    # From here on everybody takes the target for the champion, so that a rollback that dies now is carried through.
    set_tag(champion, ROLLED_BACK, str(RolledBack(target.number, by, now())))
    settled, _ = settle(name, lambda now: replace(decision, winner=now.champion), by)
    if settled.winner == target.number:
        return decision
    return replace(settled, reason=f"{decision.reason}; but version {settled.winner} was promoted since")


def describe_rollback(state: State, target: Version, by: str) -> Decision:
    """The decision to put a version in the champion's place."""
    champion = state.find(state.champion)
    assert champion
    reason = (
        f"version {target.number} ({target.family}) is back in place of version {champion.number} "
        f"({champion.family}), which {by} rolled back"
    )
    return Decision(target.number, champion.number, reason)


def _before(state: State, champion: Version) -> Version:
    """The version that a champion replaced; those that were rolled back since are passed over."""
    passed = {champion.number}
    version: Version | None = champion
    while version is not None and REPLACED in version.tags:
        number = int(version.tags[REPLACED])
        version = state.find(number)
        if number in passed:
            break
        passed.add(number)
        if version is not None and ROLLED_BACK not in version.tags:
            return version
    barred = [v.number for v in state.versions if v.rolled_back and v.stage == "Archived" and v is not champion]
    why = (
        f" but version {barred[-1]}, which was rolled back and comes back by -P version={barred[-1]}" if barred else ""
    )
    raise InputError(
        f"version {champion.number} of {state.name!r} has no champion before it to roll back to{why}; name a version: "
        "-P version=N"
    )


def _asked(state: State, champion: Version, number: int) -> Version:
    version = state.find(number)
    known = ", ".join(str(v.number) for v in state.versions if v.family)
    if version is None or version.family is None:
        what = "is unknown" if version is None else "was not registered by recsys"
        raise InputError(f"parameter 'version': version {number} of {state.name!r} {what}; expected one of {known}")
    if number == champion.number:
        raise InputError(f"parameter 'version': version {number} of {state.name!r} is in Production already")
    return version


def _move(state: State, target: int | None, reason: str, by: str) -> None:
    """Write alias, stages and tags, in an order whose every beginning is understood by `State.champion`."""
    version, before = state.find(target), state.find(state.champion)
    if version is None:
        return
    if before is not None and before is not version:
        set_tag(version, REPLACED, str(before.number))
    set_tag(version, ROLLED_BACK, None)
    client = MlflowClient()
    if state.alias != version.number:
        retry_mlflow(client.set_registered_model_alias)(version.name, CHAMPION, str(version.number))
    set_stage(version, PRODUCTION)
    others = [v for v in state.versions if v is not version and v.family is not None]
    for other in others:
        if other.stage == PRODUCTION:
            set_stage(other, "Archived")
    today = now()[:10]
    for other in others:
        if other.tags.get(STANDING, "").startswith(IN_PRODUCTION):
            say(other, f"{REPLACED_BY}{version.number} on {today}")
    if not version.tags.get(STANDING, "").startswith(IN_PRODUCTION):
        say(version, f"{IN_PRODUCTION}{today}", f", put there by {by}: {reason}")
        note = f"{MODEL_DESCRIPTION}\n\nIn Production since {today}: {reason}."
        retry_mlflow(client.update_registered_model)(version.name, note)


def say(version: Version, standing: str, why: str = "") -> None:
    """What a version is: with the reason in its description, short in a tag; the tag last, as it ends the work."""
    found = retry_mlflow(find_or_raise_version)(version.name, version.number)  # measured anew meanwhile, perhaps
    told = with_standing(found.description, standing + why)
    retry_mlflow(MlflowClient().update_model_version)(version.name, str(version.number), told)
    set_tag(version, STANDING, standing)


def set_stage(version: Version, stage: str) -> None:
    """Move a version to a stage; nothing where it is there."""
    if version.stage == stage:
        return
    with warnings.catch_warnings():
        # Stages are deprecated since MLflow 2.9 and still what people ask for; the alias says the same.
        warnings.simplefilter("ignore", FutureWarning)
        retry_mlflow(MlflowClient().transition_model_version_stage)(version.name, str(version.number), stage)


def set_tag(version: Version, key: str, value: str | None) -> None:
    """Write a tag of a version, or delete it; nothing where it says so already."""
    if version.tags.get(key) == value:
        return
    client, number = MlflowClient(), str(version.number)
    if value is None:
        retry_mlflow(client.delete_model_version_tag)(version.name, number, key)
    else:
        retry_mlflow(client.set_model_version_tag)(version.name, number, key, value)


def now() -> str:
    """The time as records say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
