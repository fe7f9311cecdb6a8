"""What a server shows of its monitor: the last report and the course of the ones before, as a file beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.monitoring.report import REFERENCE, Report
from recsys.runtime.files import write_atomically
from recsys.serving.monitored import NAME

_MOST_LOOKS = 300  # of which the course is kept
_NUMBERS = ("lists", "events", "ratings", "coverage", "gini", "novelty", "diversity", "unknown_users")


def write_state(folder: Path, report: Report, about: Mapping[str, Any]) -> None:
    """Replace the file in a server's folder.

    Args:
        about: of the champion and the decisions, as it is to be shown.
    """
    path = folder / NAME
    course = [*read_course(path), _point(report)][-_MOST_LOOKS:]
    with write_atomically(path) as aside:
        aside.write_text(
            json.dumps({**report.as_json(), "about": dict(about), "course": course}, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_course(path: Path) -> Sequence[Any]:
    """The course so far; nothing where there is no file, or it is not one of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["course"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _point(report: Report) -> dict[str, Any]:
    content = report.as_json()
    return {
        "until": report.until,
        "version": report.version,
        "look": report.look,
        "numbers": {name: content["numbers"][name] for name in _NUMBERS if name in content["numbers"]},
        "measures": {
            f"{one['of']}/{one['name']}": [one["realised"], one["low"], one["high"], one["expected"]]
            for one in content["measures"]
            if one["of"] in (REFERENCE, f"version {report.version}") or one["of"].startswith("arm ")
        },
        "scores": {one["name"]: one["score"] for one in content["findings"]},
        "alarms": [one.name for one in report.alarms],
    }
