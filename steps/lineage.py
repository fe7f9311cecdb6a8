"""Lineage: from a ratings file to what was decided on a version, and back: what learnt from a file or a user."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import digest_source
from recsys.data.movielens import KNOWN, find_obtained
from recsys.data.readers.files import find_files
from recsys.errors import InputError
from steps.support import datasets
from steps.support.decision_record import find_decisions
from steps.support.entrypoint import data_folder, given_path, run_step
from steps.support.integrity_parameters import LineageParameters
from steps.support.learnt import learnt_from_file, learnt_from_user, preparation_of, provenance_of
from steps.support.lineage_figure import Station, page, picture
from steps.support.provenance import Provenance
from steps.support.runs import open_run

if TYPE_CHECKING:
    from recsys.tracking.runs import Run
    from registry.versions import Version


def lineage(parameters: LineageParameters) -> dict[str, Any]:
    """Print and log the way of one version, or the versions that learnt from a file or a user.

    Raises:
        InputError: if more than one of version, ratings and user is given, or there is no such version or file.
    """
    asked = {"version": parameters.version, "ratings": parameters.ratings.strip(), "user": parameters.user.strip()}
    given = [name for name, value in asked.items() if value]
    if len(given) > 1:
        raise InputError(f"parameters {' and '.join(map(repr, given))}: one of them at a time, got {len(given)}")
    with open_run("lineage") as run:
        run.log_parameters(parameters)
        if asked["ratings"]:
            found = _of_file(parameters, run)
        elif asked["user"]:
            found = _of_user(parameters, run)
        else:
            found = _of_version(parameters, run)
        run.log_json(found, "lineage.json")
    return found


def _of_version(parameters: LineageParameters, run: "Run") -> dict[str, Any]:
    from registry import versions

    version = versions.find_or_raise_version(parameters.model_name, parameters.version)
    stations = _stations(version, parameters.folder)
    text = f"{version.name} version {version.number}: where it comes from, and what was decided\n\n{page(stations)}"
    print(text)
    run.describe(f"from {stations[0].title} on", f"lineage of version {version.number}")
    run.log_text(text + "\n", "lineage.txt")
    run.log_figures({"lineage.png": picture(stations)})
    return {"model": version.name, "version": version.number, "stations": [asdict(one) for one in stations]}


def _stations(version: "Version", folder: str) -> list[Station]:
    from recsys.tracking import runs
    from registry import trial_state

    made, problem = None, ""
    try:
        made = provenance_of(version)
    except InputError as error:
        problem = str(error)
    trained = runs.tags_of(version.run_id)
    stations = [_ratings(version, made, folder), _dataset(version, made), *_search(trained)]
    stations.append(_run(version, made, trained, problem))
    stage = f"stage {version.stage}" if version.stage != "None" else "in no stage"
    facts = [line for line in version.description.splitlines() if line][:2]
    stations.append(Station("version", f"{version.number} of {version.name}, {stage}", tuple(facts)))
    for one in find_decisions(version.name):
        if str(version.number) in (one["from"], one["to"]):
            title = f"{one['at'][:16].replace('T', ' ')} UTC, {one['outcome']}, by {one['author']}"
            stations.append(Station("decision", title, (one["decision"], f"run {one['run_id']}")))
    if trial := trial_state.read_trial(version):
        facts = [f"from {trial.started[:16]} on, by {trial.by}"]
        facts += [f"{trial.outcome} at {trial.ended[:16]}: {trial.why}"] if trial.outcome else ["it runs"]
        stations.append(Station("trial", f"{trial.mode}, against version {trial.champion}", tuple(facts)))
    return stations


def _ratings(version: "Version", made: Provenance | None, folder: str) -> Station:
    """The ratings and whether they are still what the dataset was made of."""
    if made is None:
        return Station("ratings", version.tags.get("ratings", "unknown"), ("whether they changed is not on record",))
    try:
        preparation = preparation_of(made)
        files = find_files(_place(made.ratings, folder))
    except (InputError, OSError):
        return Station("ratings", made.ratings, ("not here, or not readable",))
    size = sum(path.stat().st_size for path in files)
    there = f"{len(files)} file{'s' * (len(files) != 1)}, {size / 1e6:,.1f} MB"
    same = digest_source(files, preparation) == made.dataset
    return Station("ratings", made.ratings, (there, "the bytes that it learnt from" if same else "changed since"))


def _place(name: str, folder: str) -> Path:
    """Where ratings lie: a path, or what was obtained of a known data set; raises InputError where it was not."""
    if name not in KNOWN:
        return given_path(folder, name, "ratings").absolute()
    found = find_obtained(name, data_folder() / "downloads")
    if found is None:
        raise InputError(f"parameter 'ratings': {name} was not obtained here yet; prepare it, or pass a file")
    return found


def _dataset(version: "Version", made: Provenance | None) -> Station:
    from recsys.tracking import runs

    digest = made.dataset if made else version.tags.get("data_version", "unknown")
    facts = [f"split {made.given.get('split')}, seed {made.given.get('seed')}"] if made else []
    try:
        dataset = datasets.load(digest)
        sizes = ", ".join(f"{count:,} {part}" for part, count in dataset.manifest["sizes"].items())
        facts.append(f"{sizes} ratings of {len(dataset.user_ids):,} users on {len(dataset.item_ids):,} items")
        facts.append(f"test set {dataset.test_digest}")
    except InputError:
        facts.append("not prepared here")
    prepared = [run_id for run_id, tags in runs.find_runs({"data_version": digest}) if "reused" in tags]
    if prepared:
        facts.append(f"prepared by run {prepared[-1]}")
    return Station("dataset", digest, tuple(facts))


def _search(trained: dict[str, str]) -> list[Station]:
    if "study_run" not in trained:
        return []
    return [Station("search", f"study {trained['study']}", (f"trial {trained['trial']}, run {trained['study_run']}",))]


def _run(version: "Version", made: Provenance | None, trained: dict[str, str], problem: str) -> Station:
    commit = made.commit if made else trained.get("git_commit", "unknown")
    changed = made.changed if made else trained.get("git_dirty")
    code = f"code {commit[:12]}{', with uncommitted changes' * (changed == 'true')}"
    facts = [f"{code}, by {trained.get('author', 'unknown')}"]
    if made is None:
        facts.append(problem)
    else:
        settings = ", ".join(f"{name} {value}" for name, value in made.settings.items())
        facts += [f"ended {made.finished}, on {made.host}", f"settings: {settings}"]
    return Station("run", f"train {version.family or 'unknown'}, run {version.run_id or 'unknown'}", tuple(facts))


def _of_file(parameters: LineageParameters, run: "Run") -> dict[str, Any]:
    from registry import versions

    source = _place(parameters.ratings.strip(), parameters.folder)
    all_versions = versions.list_versions(parameters.model_name)
    now, before, unread = learnt_from_file(all_versions, source)
    print(_listed(f"learnt from {source} as it is now", now, parameters.model_name))
    if before:
        print(_listed("learnt from what stood there before", before, parameters.model_name))
    return _back(run, f"the file {source.name}", now, unread) | {"before": [one.number for one in before]}


def _of_user(parameters: LineageParameters, run: "Run") -> dict[str, Any]:
    from registry import versions

    user = parameters.user.strip()
    learnt, unread = learnt_from_user(versions.list_versions(parameters.model_name), user)
    print(_listed(f"learnt from user {user!r}", learnt, parameters.model_name))
    return _back(run, "a user", learnt, unread)


def _back(run: "Run", what: str, learnt: "list[Version]", unread: dict[int, str]) -> dict[str, Any]:
    for number, reason in unread.items():
        print(f"note: of version {number} it cannot be said: {reason}")
    run.describe(f"versions that learnt from {what}: {len(learnt)}", f"lineage from {what}")
    return {"versions": [one.number for one in learnt], "unknown": unread}


def _listed(what: str, found: "list[Version]", model: str) -> str:
    lines = [f"versions of {model} that {what}: {len(found) or 'none'}"]
    for one in found:
        stage = f", stage {one.stage}" if one.stage != "None" else ""
        lines.append(f"  {one.number}  {one.family}, dataset {one.tags.get('data_version', 'unknown')[:12]}{stage}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_step("lineage", lineage)
