"""Forget: a person out of feedback and record, and which versions learnt from that person."""

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.support.entrypoint import run_step
from steps.support.learnt import learnt_from_user
from steps.support.parameters import ForgetParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from registry.versions import Version


def forget(parameters: ForgetParameters) -> dict[str, int]:
    """Remove a person's rows; how many rows of each table there were."""
    from recsys.monitoring.archive import Archive
    from registry import versions

    user = parameters.user.strip()
    if not user:
        raise InputError("parameter 'user': the id of the person is needed; pass -P user=…")
    archive = Archive.of_folder(Path(parameters.folder, parameters.store).absolute() / parameters.model_name)
    with open_run("forget") as run:  # the id is in no tag or metric; `mlflow run` itself keeps its parameters
        counts = archive.count_of(user) if parameters.dry_run else archive.forget(user)
        run.log_metrics({f"rows_{table}": count for table, count in counts.items()})
        said = ", ".join(f"{count:,} rows of {table}" for table, count in counts.items()) or "no row"
        print(f"{'found' if parameters.dry_run else 'removed'} {said}")
        learnt, unread = learnt_from_user(versions.list_versions(parameters.model_name), user)
        print(_told(learnt, parameters.model_name))
        for number, reason in unread.items():
            print(f"note: whether version {number} learnt from this person cannot be said: {reason}")
        print("not looked at: ratings files, datasets prepared of them, and exports; remove the person there yourself")
    return counts


def _told(learnt: "list[Version]", model: str) -> str:
    if not learnt:
        return f"no version of {model} learnt from this person"
    names = ", ".join(f"{one.number} (dataset {one.tags.get('data_version', 'unknown')[:12]})" for one in learnt)
    return (
        f"versions of {model} that learnt from this person: {names}; train again without the person's ratings, "
        "promote, and delete these versions"
    )


if __name__ == "__main__":
    run_step("forget", forget)
