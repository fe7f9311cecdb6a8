"""How the start and the end of a trial come to stand in the record of decisions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.settings import Settings
from registry.policy import Decision
from steps.support import decision_record
from steps.support.runs import made_by, open_run

if TYPE_CHECKING:
    from registry.trial_state import Trial

STARTED = "trial"
ENDS = {
    "promoted": "promoted",  # as any other promotion: it changes who is in Production
    "rolled_back": "trial_rolled_back",
    "no_difference": "trial_no_difference",
    "mismatch": "trial_mismatch",
    "passed": "trial_passed",
    "stopped": "trial_stopped",
    "void": "trial_void",
}
SAID = {
    "trial_rolled_back": "is rolled back",
    "trial_no_difference": "ends with no difference",
    "trial_mismatch": "ends undecided: the arms had not the users that they should have",
    "trial_passed": "ends: nothing wrong was found beside the champion",
    "trial_stopped": "is stopped",
    "trial_void": "is void",
    STARTED: "begins",
}
_OF_TRIAL, _ENDING = "promotion.trial", "trial_ending"  # the trial; the model, from before its end is carried out


def end_trial(
    model: str, trial: "Trial", outcome: str, why: str, parameters: Settings, page: Mapping[str, Any] | None = None
) -> None:
    """End a trial and record it: first, for a promotion, that it is about to be, then what came of it."""
    from registry import trials

    with open_run("trial") as run:
        run.log_parameters(parameters)
        run.set_tags({_OF_TRIAL: trial.id, _ENDING: model})
        record = decision_record.Record(run, parameters)
        if outcome == "promoted":
            record.intend(_decision(trial.version, trial.champion, outcome, why))
        ended = trials.end(model, trial, outcome, why, made_by()["author"])
        found = ended.outcome if ended is not None and ended.outcome else "void"
        reason = ended.why if ended is not None else "the challenger is gone from the registry"
        _finish(record, trial.version, trial.champion, found, reason, page)


def note_end(
    model: str,
    page: Mapping[str, Any],
    outcome: str,
    why: str,
    champion: int | None,
    parameters: Settings,
    *,
    waits: bool,
) -> bool:
    """Record an end that is not on the record yet: its judge died over it, or somebody moved versions by hand.

    Args:
        waits: leave it to another judge that has begun to record it.

    Returns whether it is on the record.
    """
    from recsys.tracking import runs

    done = decision_record.find_decisions(model)
    if any(one.get("trial") == page["trial"] and one["outcome"] in ENDS.values() for one in done):
        return True
    if waits and runs.find_runs({_ENDING: model, _OF_TRIAL: str(page["trial"])}):
        return False
    with open_run("trial") as run:
        run.log_parameters(parameters)
        run.set_tags({_OF_TRIAL: str(page["trial"])})
        record = decision_record.Record(run, parameters)
        _finish(record, int(page["version"]), champion, outcome, why, page)
    return True


def note_start(record: decision_record.Record, trial: "Trial") -> None:
    """Mark the run of a promotion as the beginning of a trial."""
    record.run.set_tags({_OF_TRIAL: trial.id})


def is_begun(model: str, trial: "Trial") -> bool:
    """Whether the beginning of a trial is on the record: it is not where whoever began it was killed."""
    return any(
        one.get("trial") == trial.id and one["outcome"] == STARTED for one in decision_record.find_decisions(model)
    )


def _decision(version: int, champion: int | None, outcome: str, why: str) -> Decision:
    if outcome == "promoted":
        return Decision(version, champion, f"version {version} won its trial against version {champion}: {why}")
    ended = SAID.get(ENDS.get(outcome, ""), outcome)
    return Decision(champion, champion, f"the trial of version {version} {ended}: {why}; version {champion} stays")


def _finish(
    record: decision_record.Record,
    version: int,
    champion: int | None,
    outcome: str,
    why: str,
    page: Mapping[str, Any] | None,
) -> None:
    if page and page.get("course"):
        from recsys.monitoring.trial_plot import sequence

        record.run.log_json(dict(page), "trial.json")
        record.run.log_figures({"sequence.png": sequence(page)})
    record.finish(_decision(version, champion, outcome, why), ENDS.get(outcome, outcome), None)
