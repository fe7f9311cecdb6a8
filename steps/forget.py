"""Forget: a person out of feedback and record, and which versions learnt from that person."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.support import feedback_database
from steps.support.entrypoint import run_step
from steps.support.learnt import learnt_from_user
from steps.support.parameters import ForgetParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from recsys.monitoring.archive import Archive
    from registry.versions import Version


def forget(parameters: ForgetParameters) -> dict[str, int]:
    """Remove a person's rows; how many rows of each table there were."""
    from recsys.monitoring.archive import Archive
    from registry import versions

    user = parameters.user.strip()
    if not user:
        raise InputError("parameter 'user': the id of the person is needed; pass -P user=…")
    url = feedback_database.find_url(parameters.database)
    archive = Archive.of_folder(Path(parameters.folder, parameters.store).absolute() / parameters.model_name)
    with open_run("forget") as run:  # the id is in no tag or metric; `mlflow run` itself keeps its parameters
        counts = _remove(archive, url, user, parameters.dry_run)
        run.log_metrics({f"rows_{table}": count for table, count in counts.items()})
        said = ", ".join(f"{count:,} rows of {table}" for table, count in counts.items()) or "no row"
        print(f"{'found' if parameters.dry_run else 'removed'} {said}")
        learnt, unread = learnt_from_user(versions.list_versions(parameters.model_name), user)
        print(_told(learnt, parameters.model_name))
        for number, reason in unread.items():
            print(f"note: whether version {number} learnt from this person cannot be said: {reason}")
        if url:
            print("other servers that share this database keep what they fetched of it: run forget beside each of them")
        print(
            "not looked at: ratings files (those that retrain gathered too, in the folder of data), datasets prepared "
            "of them, and exports; remove the person there yourself"
        )
    return counts


def _remove(archive: "Archive", url: str, user: str, dry_run: bool) -> Counter[str]:
    """Of the server's file, and of the team's database where there is one."""
    if dry_run:
        counts = Counter(archive.count_of(user))
        return counts + Counter(_shared(url, user, dry_run))
    counts = Counter[str]()
    for _ in range(2 if url else 1):  # the server may have been sending or fetching meanwhile
        counts.update(archive.forget(user))
        counts.update(_shared(url, user, dry_run))
    return counts


def _shared(url: str, user: str, dry_run: bool) -> dict[str, int]:
    from recsys.serving.sharing import TABLE, remove_person

    return {TABLE: remove_person(url, user, dry_run=dry_run)} if url else {}


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
