"""Rollback: the champion before put back in Production, or a version by number."""

from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps import decisions
from steps.parameters import RollbackParameters
from steps.runs import made_by, open_run
from steps.shell import run_step

if TYPE_CHECKING:
    from registry.champion import State
    from registry.promotion import Decision
    from registry.versions import Version


def rollback(parameters: RollbackParameters) -> "Decision":
    """Put a version back in Production, once it is seen to load; the champion does not come back by itself."""
    from registry import champion, versions

    with open_run("rollback") as run:
        run.log_parameters(parameters)
        record = decisions.Record(run, parameters)

        def check(target: "Version", state: "State") -> None:
            try:
                versions.load_version(target)
            except InputError as error:
                raise InputError(f"{error}; or roll back to another: -P version=N") from None
            record.intend(champion.describe_rollback(state, target, made_by()["author"]))

        decision = champion.roll_back(parameters.model_name, parameters.version, made_by()["author"], check)
        record.finish(decision, "rolled_back", None)
    print(f"{decision.reason}; promote does not choose version {decision.previous} again unless asked to")
    return decision


if __name__ == "__main__":
    run_step("rollback", rollback)
