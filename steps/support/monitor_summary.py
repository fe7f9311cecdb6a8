"""A report as metrics, as tables, and as the text on the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from recsys.data.dataset import Dataset

if TYPE_CHECKING:
    import pandas as pd

    from recsys.monitoring.measures import Measure
    from recsys.monitoring.report import Report

_SHOWN = ("rmse", "auc", "like_share", "ndcg", "likes_per_list")
_POLICIES = "policy_"


def metrics(report: "Report") -> dict[str, float]:
    """All finite numbers by name; names of MLflow keep letters, digits and _-. /."""
    found = dict(report.numbers)
    for one in report.measures:
        of = one.of.replace(": ", "_").replace(" ", "_")
        found[f"{of}/{one.name}"] = one.realised
        found[f"{of}/expected_{one.name}"] = one.expected
    found |= {f"score/{one.name}": one.score for one in report.findings}
    found["alarms"] = len(report.alarms)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def tables(report: "Report") -> "dict[str, pd.DataFrame]":
    """Measures and findings as tables."""
    import pandas as pd

    return {
        "measures": pd.DataFrame([asdict(one) for one in report.measures]),
        "findings": pd.DataFrame([asdict(one) for one in report.findings]),
    }


def learnt(dataset: Dataset, most: int) -> "pd.DataFrame":
    """Rows that the version learnt from, at most so many, by raw ids."""
    import pandas as pd

    rows = next(dataset.blocks("train"))[:most]
    return pd.DataFrame(
        {
            "user_id": dataset.user_ids[rows.users].astype(str),
            "item_id": dataset.item_ids[rows.items].astype(str),
            "rating": rows.ratings,
        }
    )


def text(report: "Report", model: str, more: Sequence[str] = ()) -> str:
    """The report on a screen."""
    numbers = report.numbers
    lines = [
        f"{model} version {report.version}, {_time(report.since)} to {_time(report.until)} (UTC), look {report.look}",
        _traffic(report),
        f"feedback: {numbers['events']:,.0f} events"
        + (f", {numbers['answering_events']:.0%} of them answer a list" if "answering_events" in numbers else "")
        + f"; {numbers['ratings']:,.0f} ratings counted",
    ]
    shown = [one for one in report.measures if one.name in _SHOWN]
    if shown:
        lines += ["", f"{'':<20}{'measure':<16}{'realised':>9}  {'95% over users':<18}{'expected':>9}{'rows':>10}"]
        lines += [_line(one) for one in shown]
    alarms = report.alarms
    unjudged = [one for one in report.findings if one.problem]
    lines.append("")
    for one in alarms:
        followed = [other.name for other in report.findings if one.name in other.follows_from]
        after = f"; {', '.join(followed)} follow{'s' * (len(followed) == 1)} from it" if followed else ""
        lines.append(f"{one.severity.upper()} {one.name}: {one.sentence}{after}")
    if not alarms:
        lines.append(f"no alarm: {len(report.findings) - len(unjudged)} of {len(report.findings)} checks were judged")
    problems: dict[str, list[str]] = {}
    for one in unjudged:
        problems.setdefault(one.problem, []).append(one.name)
    lines += [f"not judged: {', '.join(names)}: {problem}" for problem, names in problems.items()]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes), *more])


def _traffic(report: "Report") -> str:
    numbers = report.numbers
    if not numbers["lists"]:
        return "traffic: no list was served"
    policies = [name for name in numbers if name.startswith(_POLICIES)]
    parts = [f"traffic: {numbers['lists']:,.0f} lists for {numbers['users']:,.0f} users"]
    parts.append(", ".join(f"{numbers[name]:.0%} {name.removeprefix(_POLICIES)}" for name in policies))
    if "coverage" in numbers:
        parts.append(
            f"coverage {numbers['coverage']:.1%}, Gini {numbers['gini']:.2f}, novelty {numbers['novelty']:.1f} bits"
        )
    if "diversity" in numbers:
        parts.append(f"diversity {numbers['diversity']:.2f}")
    return "; ".join(parts)


def _line(one: "Measure") -> str:
    bounds = f"{one.low:.4f} to {one.high:.4f}" if np.isfinite(one.low) else ""
    expected = f"{one.expected:.4f}" if np.isfinite(one.expected) else "-"
    return f"{one.of:<20}{one.name:<16}{one.realised:>9.4f}  {bounds:<18}{expected:>9}{one.rows:>10,}"


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
