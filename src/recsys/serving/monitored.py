"""What the monitor wrote beside the server: its last report, for the page and for Prometheus."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "monitor.json"
_BOUNDS = ("realised", "low", "high", "expected")

Sample = tuple[str, str, Mapping[str, str], float]
"""A metric's name, what it says, its labels and its value."""


class Monitored:
    """The file, read again whenever it has changed."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self._path = folder / name
        self._read = 0
        self._content: dict[str, Any] = {}

    def content(self) -> dict[str, Any]:
        """The last report; empty where there is none, or none that can be read."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self._content, self._read = found if isinstance(found, dict) else {}, changed
        except (OSError, ValueError):
            return {}
        return self._content

    def samples(self) -> list[Sample]:
        """All finite numbers of it as metrics; none where it is not of the form that is expected."""
        try:
            return [one for one in _samples(self.content()) if isinstance(one[3], int | float)]
        except (KeyError, TypeError, ValueError, AttributeError):
            return []


def _samples(content: dict[str, Any]) -> Iterator[Sample]:
    if not content:
        return
    about, version = content["about"], {"version": content["version"]}
    yield "recsys_monitor_timestamp_seconds", "End of the window judged last", version, content["until"]
    yield "recsys_monitor_looks", "How often this version was judged", version, content["look"]
    created = "recsys_model_created_timestamp_seconds", "When the champion was trained"
    yield *created, {**version, "family": str(about.get("family"))}, about.get("created")
    yield "recsys_champion_since_timestamp_seconds", "When it became champion", version, about.get("champion_since")
    for outcome, count in about.get("decisions", {}).items():
        yield "recsys_decisions", "Decisions on record", {"outcome": outcome}, count
    for name, value in content["numbers"].items():
        yield "recsys_window", "Numbers of the window judged last", {"name": name}, value
    for one in content["measures"]:
        for bound in _BOUNDS:
            labels = {"of": one["of"], "name": one["name"], "kind": bound}
            yield "recsys_measure", "Measures of the window judged last", labels, one[bound]
    for one in content["findings"]:
        check = {"check": one["name"]}
        yield "recsys_drift_score", "Above 1: an alarm", check, one["score"]
        is_cause = one["severity"] != "none" and not one["follows_from"]
        labels = {**check, "severity": one["severity"]}
        yield "recsys_drift_alarm", "1 for an alarm that no other explains", labels, float(is_cause)
    for group, (expected, realised) in enumerate(zip(*content["calibration"], strict=True)):
        for kind, value in (("expected", expected), ("realised", realised)):
            labels = {"tenth": str(group), "kind": kind}
            yield "recsys_calibration", "Like probability and share of likes by tenths of the ratings", labels, value
