"""Figures of a report: what was measured in, a matplotlib figure out."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from matplotlib.figure import Figure

from recsys.figures import BLUE, GREY, ORANGE, RED, new_figure
from recsys.monitoring.measures import Measure
from recsys.monitoring.report import Report

_LONGEST = 5.0  # scores beyond are drawn as this


def report_plots(report: Report) -> dict[str, Figure]:
    """All figures of a report by file name."""
    return {
        "drift.png": drift(report),
        "expected_realised.png": expected_realised(report.measures),
        "calibration.png": calibration(report),
        "ratings.png": ratings(report),
        "traffic.png": traffic(report),
    }


def drift(report: Report) -> Figure:
    """The score of every check; beyond 1 is an alarm."""
    findings = list(report.findings)[::-1]
    figure, axes = new_figure("Checks (an alarm is beyond the line)", height=1.2 + 0.3 * len(findings))
    colours = [RED if one.alarms and not one.follows_from else ORANGE if one.alarms else BLUE for one in findings]
    axes.barh(
        [one.name.replace("_", " ") for one in findings], [min(one.score, _LONGEST) for one in findings], color=colours
    )
    axes.axvline(1, color="black", lw=1, ls="--")
    for row, one in enumerate(findings):
        if one.problem:
            axes.annotate("not judged", (0, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(xlabel="the lesser of evidence and change, each over its limit", xlim=(0, max(1.5, axes.get_xlim()[1])))
    return figure


def expected_realised(measures: Sequence[Measure]) -> Figure:
    """Expected (crosses) against realised (dots, with 95% intervals over users) RMSE and AUC."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for place, name in enumerate(("rmse", "auc"), 1):
        axes = figure.add_subplot(1, 2, place)
        lines = [one for one in measures if one.name == name and np.isfinite(one.realised)]
        for row, one in enumerate(lines):
            if np.isfinite(one.low):
                axes.plot([one.low, one.high], [row, row], color=BLUE, alpha=0.5, lw=3)
            axes.plot(one.realised, row, "o", color=BLUE)
            if np.isfinite(one.expected):
                axes.plot(one.expected, row, "x", color=ORANGE, ms=9, mew=2)
        axes.set_yticks(range(len(lines)), [f"{one.of} (n={one.rows:,})" for one in lines], fontsize=8)
        axes.set(title=f"{name.upper()}: expected x, realised •", ylim=(-0.6, max(len(lines), 1) - 0.4))
        axes.grid(alpha=0.25)
    return figure


def calibration(report: Report) -> Figure:
    """Probability of a like against the share that were likes, in tenths of the window's ratings."""
    figure, axes = new_figure("Calibration in this window", width=5.5, height=5)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect")
    if len(report.rated):
        axes.plot(*report.calibration, marker="o", color=BLUE, label="tenths of the ratings")
    axes.set(xlabel="probability of a like", ylabel="share of likes", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    return figure


def ratings(report: Report) -> Figure:
    """How often each rating was given, in the window and in the reference."""
    figure, axes = new_figure("Ratings")
    pair = [("this window", report.rated.ratings, BLUE)]
    if report.reference is not None:
        pair.append(("reference", report.reference.rated.ratings, GREY))
    low, high = (f([f(values) for _, values, _ in pair if len(values)], default=end) for f, end in ((min, 0), (max, 1)))
    edges = np.linspace(low, high, 22)
    for name, values, colour in pair:
        if len(values):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(
                shares, edges, color=colour, lw=2, label=f"{name} (n={len(values):,}, mean {values.mean():.2f})"
            )
    axes.set(xlabel="rating", ylabel="share")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure


def traffic(report: Report) -> Figure:
    """Lists an hour, by the policy that made them."""
    figure, axes = new_figure("Lists an hour")
    policies = [name for name in report.per_hour if name != "at"]
    if policies:
        at = np.array([datetime.fromtimestamp(one, UTC) for one in report.per_hour["at"]])
        axes.stackplot(at, [report.per_hour[name] for name in policies], labels=policies, alpha=0.8)
        axes.legend(loc="upper left")
        figure.autofmt_xdate()
    axes.set(xlabel="time (UTC)", ylabel="lists an hour")
    return figure
