"""Report: a version and its decision in, one HTML file for people out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data import movielens
from recsys.data.dataset import Dataset
from recsys.data.titles import read_titles
from recsys.errors import InputError
from steps.support import datasets
from steps.support.entrypoint import data_folder, given_path, run_step
from steps.support.parameter_groups import AUTO
from steps.support.parameters import ReportParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from registry.transitions import State
    from registry.versions import Version

NAME = "report.html"


def report(parameters: ReportParameters) -> Path:
    """Write the report of a version, or of what a run of `main` decided, and log it; returns the file."""
    output = given_path(parameters.folder, parameters.output, "output").absolute()
    if not output.parent.is_dir():
        raise InputError(f"parameter 'output': a file in a folder that exists is needed, got {parameters.output!r}")
    with open_run("report") as run:
        run.log_parameters(parameters)
        decision = find_decision(parameters.model_name, parameters.version, parameters.run)
        number, html = make_report(parameters.model_name, decision, parameters, obtain=True)
        output.write_text(html, encoding="utf-8")
        run.log_file(output)
        run.describe(f"report of version {number}: {decision['why']}", f"report: version {number}")
    print(f"wrote {output}: version {number} of {parameters.model_name}, {len(html) / 1e6:.1f} MB, to open or to send")
    return output


def make_report(model_name: str, decision: dict[str, Any], parameters: Any, *, obtain: bool) -> tuple[int, str]:
    """The version that a decision was about, and the report as HTML.

    Args:
        decision: the content of decision.json.
        parameters: with `folder` and, for titles, `items`.
        obtain: whether titles of MovieLens may be downloaded.
    """
    from registry import integrity, transitions
    from steps.support.report_page import Material, render

    state = transitions.read_state(model_name)
    version = _subject(decision, state)
    dataset = _dataset(decision["dataset"]["digest"])
    titles = _titles(parameters, dataset, obtain)
    material = Material(decision, version, state.versions, dataset, integrity.load_version(version), titles)
    return version.number, render(material)


def find_decision(model_name: str, version: int | None, run_id: str) -> dict[str, Any]:
    """The newest decision that compared the version, or any, or that a run of `main` made; raises InputError."""
    from recsys.tracking import runs
    from registry import versions
    from steps.support.decision_record import find_decisions

    versions.find_or_raise_version(model_name, version)
    parents = {run_id}
    for record in reversed(find_decisions(model_name)):
        if run_id and not parents & {record["run_id"], record.get("parent", "")}:
            continue
        found = runs.read_json(record["run_id"], "decision.json")
        if found and found["dataset"] and _measured(found, version):
            return found if version is None else {**found, "about": version}
    what = f"of run {run_id}" if run_id else f"on version {version}" if version else "on a version"
    raise InputError(f"model {model_name!r} has no decision {what} to report; run the entry point promote first")


def _measured(decision: dict[str, Any], number: int | None) -> bool:
    """Whether a decision measured the version, or any."""
    return any(one["metrics"] and number in (one["version"], None) for one in decision["candidates"])


def _subject(decision: dict[str, Any], state: "State") -> "Version":
    """The version asked for, else the one in Production after the decision, else the best that was measured."""
    measured = [one for one in decision["candidates"] if one["metrics"]]
    best = max(measured, key=lambda one: one["metrics"].get("auc", 0.0))
    number = decision.get("about") or decision["to"] or best["version"]
    version = state.find(number)
    if version is None:
        raise InputError(
            f"version {number} of {state.name!r}, which the decision is about, is gone from the registry; run promote "
            "again, or pass -P version=N for another"
        )
    return version


def _dataset(digest: str) -> Dataset | None:
    try:
        return datasets.load(digest)
    except InputError:
        return None


def _titles(parameters: Any, dataset: Dataset | None, obtain: bool) -> dict[str, str]:
    asked = getattr(parameters, "items", AUTO)
    if asked == "none":
        return {}
    if asked != AUTO:
        return read_titles(given_path(parameters.folder, asked, "items"))
    name, folder = dataset.preparation.ratings if dataset else "", data_folder() / "downloads"
    if name not in movielens.KNOWN or not (obtain or movielens.titles_file(name, folder).exists()):
        return {}
    path = movielens.obtain_titles(name, folder)
    return read_titles(path) if path else {}


if __name__ == "__main__":
    run_step("report", report)
