"""The figure of a trial: its confidence sequence over users, and how near each guard came to its limit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_BLUE, _GREY, _RED = "#1f77b4", "#888888", "#a40e26"
_LINES = ("-", "--", ":", "-.")


def sequence(page: Mapping[str, Any]) -> Figure:
    """The course on a judge's page, look by look."""
    course = page["course"]
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    known = [point for point in course if point["low"] is not None]
    users = [point["users"] for point in known]
    if known:
        low, high = ([point[bound] for point in known] for bound in ("low", "high"))
        upper.fill_between(users, low, high, color=_BLUE, alpha=0.2, label="confidence sequence")
        upper.plot(users, [point["difference"] for point in known], color=_BLUE, label="difference")
        shown = np.quantile(np.abs([*low, *high]), 0.9)  # the first intervals are as wide as the scale
        upper.set_ylim(-1.2 * shown, 1.2 * shown)
    upper.axhline(0, color="black", lw=1)
    upper.axhline(-page["margin"], color=_GREY, ls="--", lw=1)
    title = f"Version {page['version']} against version {page['champion']}: {page['reward']} a user"
    upper.set(title=title, xlabel="users with a reward", ylabel="challenger less champion")
    if known:
        upper.legend()
    at = (np.array([point["at"] for point in course]) - course[0]["at"]) / 60
    for name, style in zip(course[-1]["guards"], _LINES, strict=False):
        lower.plot(at, [point["guards"].get(name, 0) for point in course], style, label=name.replace("_", " "))
    lower.axhline(1, color=_RED, lw=1)
    lower.set(title="Guards (beyond the line: rolled back)", xlabel="minutes", ylabel="evidence over its limit")
    lower.legend()
    return figure
