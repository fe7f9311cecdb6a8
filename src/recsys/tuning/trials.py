"""What trials say: which is best, how they ended, what they cost, and what pruning saved."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from recsys.errors import InputError

EndedTrial = FrozenTrial
"""The name by which the steps, which know nothing of Optuna, speak of a trial."""

STOPPED = "stopped"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states that count: a trial that failed is made up for by another."""

_MOST_FAILURES = 10  # in a row: then it is not the settings that are at fault


def best_trial(trials: Sequence[FrozenTrial], direction: str) -> FrozenTrial | None:
    """The best completed trial, the earliest among equals; None where none completed."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    sign = -1 if direction == "maximize" else 1
    return min(complete, key=lambda trial: (sign * value_of(trial), trial.number), default=None)


def value_of(trial: FrozenTrial) -> float:
    """The value of a completed trial."""
    assert trial.value is not None
    return float(trial.value)


def counts(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """How many trials ended in each state."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return {f"trials_{state.name.lower()}": float(count(trials, state)) for state in states}


def share_saved(trials: Sequence[FrozenTrial]) -> float:
    """The share of the search's time that pruning saved, estimated; 0 where nothing was pruned.

    A pruned trial would have gone on to the median number of steps of the completed ones, each step taking what
    its own steps took.
    """
    steps = sorted(len(trial.intermediate_values) for trial in trials if trial.state is TrialState.COMPLETE)
    if not steps:
        return 0.0
    usual, saved, spent = steps[len(steps) // 2], 0.0, 0.0
    for trial in trials:
        seconds = float(note_of(trial).get("seconds", 0.0))
        spent += seconds
        ran = len(trial.intermediate_values)
        if trial.state is TrialState.PRUNED and ran:
            saved += max(0, usual - ran) * seconds / ran
    return saved / (saved + spent) if saved else 0.0


def note_of(trial: FrozenTrial) -> dict[str, Any]:
    """What the worker wrote down of a trial: host, worker, seconds, metrics, curves and perhaps error."""
    note: dict[str, Any] = trial.user_attrs.get("note", {})
    return note


def milliseconds(moment: datetime | None) -> int:
    """A time of a trial as MLflow counts it."""
    return int((moment.timestamp() if moment else time.time()) * 1000)


def count(trials: Sequence[FrozenTrial], *states: TrialState) -> int:
    """How many trials are in these states."""
    return sum(trial.state in states for trial in trials)


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a failed trial ended for no fault of its own: its worker died or was stopped."""
    return bool(note_of(trial).get("error", STOPPED) == STOPPED)


def refuse_endless_failure(trials: Sequence[FrozenTrial]) -> None:
    """End a search whose trials all fail; raises InputError with the newest failure."""
    failures: list[str] = []
    for trial in reversed(trials):
        if trial.state in DONE or len(failures) >= _MOST_FAILURES:
            break
        if trial.state is TrialState.FAIL and not is_lost(trial):
            failures.append(str(note_of(trial)["error"]))
    if len(failures) >= _MOST_FAILURES:
        raise InputError(f"the last {len(failures)} trials failed, the newest with {failures[0]}; narrow -P space=…")
