"""Rollback: the champion before put back in Production, or a version by number."""

from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.support import decision_record
from steps.support.entrypoint import run_step
from steps.support.parameters import RollbackParameters
from steps.support.runs import made_by, open_run

if TYPE_CHECKING:
    from registry.policy import Decision
    from registry.transitions import State
    from registry.versions import Version


def rollback(parameters: RollbackParameters) -> "Decision":
    """Put a version back in Production, once it is seen to load; the champion does not come back by itself."""
    from registry import integrity, transitions, trials

    with open_run("rollback") as run:
        run.log_parameters(parameters)
        record = decision_record.Record(run, parameters)

        def check(target: "Version", state: "State") -> None:
            try:
                integrity.load_version(target)
            except InputError as error:
                raise InputError(f"{error}; or roll back to another: -P version=N") from None
            record.intend(transitions.describe_rollback(state, target, made_by()["author"]))

        decision = transitions.roll_back(parameters.model_name, parameters.version, made_by()["author"], check)
        record.finish(decision, "rolled_back", None)
        trials.tidy(parameters.model_name, made_by()["author"])  # a trial against the champion before is over
    print(f"{decision.reason}; promote does not choose version {decision.previous} again unless asked to")
    return decision


if __name__ == "__main__":
    run_step("rollback", rollback)
