"""Monitor: a time of traffic and feedback against what the champion learnt from."""

import os
import tempfile
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from steps.support import datasets, decision_record, monitor_summary
from steps.support.entrypoint import given_folder, run_step
from steps.support.parameters import MonitorParameters
from steps.support.repeat import repeat
from steps.support.runs import open_run

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender
    from recsys.monitoring.rated import Reference
    from recsys.monitoring.report import Report
    from recsys.tracking.runs import Run
    from registry.transitions import State
    from registry.versions import Version

_MODEL, _VERSION, _LOOK = "monitor.model", "monitor.version", "monitor.look"
HARM, UNTIL = "monitor.harm", "monitor.until"  # alarms that are no notices; end of the window, seconds since 1970
_PAGE_ROWS = 20_000  # of those learnt from
_LATE = 366 * 86_400.0  # after the window; feedback that comes later is not looked for


def monitor(parameters: MonitorParameters) -> "Report":
    """Judge once, or again and again; the last report.

    What fails at the first look ends it. Later, a registry that is down or a disk that is full is told, and looked at
    again: `recsys_monitor_timestamp_seconds` stands still meanwhile, which is an alarm of its own.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently would report its use to its makers
    return repeat(_Watching(parameters).look, parameters.every)


class _Watching:
    """Looks at one model's server; what a version is and learnt from is read once."""

    def __init__(self, parameters: MonitorParameters) -> None:
        from recsys.monitoring.archive import Archive

        self._parameters = parameters
        self._folder = Path(parameters.folder, parameters.store).absolute() / parameters.model_name
        self._output = given_folder(parameters.folder, parameters.export, "export") if parameters.export else None
        self._archive: Archive = Archive.of_folder(self._folder)
        self._reference = cache(self._make_reference)
        self._recommender = cache(self._load)

    def look(self) -> "Report":
        """Judge the window that ends now, or where `until` says."""
        from recsys.monitoring import plots, state
        from recsys.monitoring.attribution import tell_apart
        from recsys.monitoring.report import watch
        from recsys.monitoring.traffic import Names, read_feedback, read_traffic
        from registry import transitions

        parameters = self._parameters
        until = moment(parameters.until, "until")
        since = until - parameters.window
        with open_run("monitor") as run:
            run.log_parameters(parameters)
            registry = transitions.read_state(parameters.model_name)
            version = _champion(registry)
            number = str(version.number)
            look = 1 + self._looks(number)
            run.set_tags({_MODEL: parameters.model_name, _VERSION: number, _LOOK: str(look)})
            reference, dataset, notes = self._reference(number)
            names = Names.empty()
            traffic = read_traffic(self._archive.lists(since - parameters.within, until), names)
            report = watch(
                tell_apart(traffic, names, {str(one.number): one.created for one in registry.versions}),
                read_feedback(self._archive.feedback(since, until + _LATE), names),
                names,
                number,
                self._recommender,
                reference,
                since=since,
                until=until,
                within=parameters.within,
                look=look,
                like_threshold=parameters.like_threshold,
                alpha=parameters.alpha,
                notes=notes,
            )
            decisions = decision_record.find_decisions(parameters.model_name)
            state.write_state(self._folder, report, _about(version, decisions))
            run.log_metrics(monitor_summary.metrics(report))
            run.log_json(report.as_json(), "report.json")
            for name, table in monitor_summary.tables(report).items():
                run.log_table(table, f"{name}.csv")
            run.log_figures(plots.report_plots(report))
            harm = ", ".join(one.name for one in report.alarms if one.severity != "notice")
            run.set_tags({"alarms": ", ".join(one.name for one in report.alarms) or "none"})
            run.set_tags({HARM: harm, UNTIL: f"{until:.3f}"})
            more = [*self._page(run, report, dataset), *self._export(since, until)]
            print(monitor_summary.text(report, parameters.model_name, more))
        return report

    def _looks(self, version: str) -> int:
        """How often this version was judged before."""
        found = find_looks(self._parameters.model_name, version)
        return max((int(tags.get(_LOOK, 0)) for tags in found), default=0)

    def _load(self, version: str) -> "Recommender":
        from recsys.monitoring.attribution import EARLIER
        from registry import integrity, versions

        if version.endswith(EARLIER):
            raise InputError("the registry was restored from a backup, and has another version of that number now")
        return integrity.load_version(versions.find_or_raise_version(self._parameters.model_name, int(version)))

    def _make_reference(self, version: str) -> "tuple[Reference | None, Dataset | None, list[str]]":
        """What the version is compared with, and its dataset; None of both, and why, where that is gone."""
        from recsys.monitoring.rated import make_reference
        from registry import versions

        found = versions.find_or_raise_version(self._parameters.model_name, int(version))
        try:
            dataset = datasets.load(found.tags.get("data_version", ""))
        except InputError as error:
            return None, None, [str(error)]
        return make_reference(self._recommender(version), dataset), dataset, []

    def _page(self, run: "Run", report: "Report", dataset: Dataset | None) -> list[str]:
        """Log the page by Evidently; what is to be said where there is none."""
        if not self._parameters.page or report.reference is None or dataset is None or not len(report.rated):
            return []
        from recsys.monitoring.evidently_page import write_page

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "evidently.html"
            try:
                write_page(path, report.rated, report.reference.rated, monitor_summary.learnt(dataset, _PAGE_ROWS))
            except InputError as error:
                return [f"note: {error}"]
            run.log_file(path)
        return []

    def _export(self, since: float, until: float) -> list[str]:
        if self._output is None:
            return []
        counts = self._archive.export(self._output, since, until)
        return [f"exported to {self._output}: " + ", ".join(f"{count:,} rows {name}" for name, count in counts.items())]


def find_looks(model_name: str, version: str) -> list[dict[str, str]]:
    """The tags of all runs in which a version was judged."""
    from recsys.tracking import runs

    return [tags for _, tags in runs.find_runs({_MODEL: model_name, _VERSION: version})]


def _champion(registry: "State") -> "Version":
    version = registry.find(registry.champion)
    if version is None:
        raise InputError(
            f"model {registry.name!r} has no champion to judge; run the entry point promote, then serve, first"
        )
    return version


def _about(version: "Version", decisions: list[dict[str, str]]) -> dict[str, Any]:
    outcomes: dict[str, int] = {}
    for record in decisions:
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
    moved = [record["at"] for record in decisions if record["to"] == str(version.number)]
    return {
        "version": str(version.number),
        "family": version.family,
        "created": version.created,
        "champion_since": moment(moved[-1], "at") if moved else None,
        "standing": version.standing,
        "decisions": outcomes,
        "last_decision": decisions[-1]["decision"] if decisions else None,
    }


def moment(text: str, name: str) -> float:
    """Seconds since 1970 of "now" or an ISO time, UTC where it names no zone; raises InputError.

    Args:
        name: of the parameter, for the message.
    """
    if text.strip().lower() == "now":
        return time.time()
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"parameter {name!r}: now, or a time such as 2026-11-29T12:00, is needed, got {text!r}"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


if __name__ == "__main__":
    run_step("monitor", monitor)
