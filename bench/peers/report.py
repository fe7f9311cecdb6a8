"""A comparison as Markdown and as a plot."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.measure import heading, table
from bench.peers.compare import Comparison, Line
from bench.peers.contest import Fit
from recsys.models.base.capabilities import capabilities

_SCORES = {"rmse": "RMSE", "mae": "MAE", "auc": "AUC", "auc_per_user": "per-user AUC"}
_COLUMNS = ("", "fit s", "predict s", "peak GB", "of it imports", *_SCORES.values(), "trials", "fit", "peak")


def report(done: Comparison) -> str:
    """A heading, the table of all that ran, how soon ours reach the others' RMSE, and what went into it."""
    first, ran = done.problems[0], [line for line in done.lines if line.fit]
    title = f"{done.name}: {len(first.train):,} ratings to learn from, {len(first.test):,} to predict"
    if len(done.problems) > 1:
        title += f", means of {len(done.problems)} folds"
    packages = sorted({line.contestant.pins[0].replace("==", " ") for line in ran if line.contestant.pins})
    digests = ", ".join(problem.digest() for problem in done.problems)
    parts = [
        heading(title, ["torch", "numpy"]).rstrip("\n") + "".join(f", {package}" for package in packages) + "\n",
        f"Test rows {digests}; ratings from {first.scale[0]:g} to {first.scale[1]:g}, liked from "
        f"{first.like_threshold:g}; all test rows are scored. Times are without imports and without reading rows; "
        "memory is the process's own. The last two columns are ours, of the first line, over its.\n",
        table(_COLUMNS, _rows(done)),
        *_reached(done),
        "\n".join([*_failures(done), *_notes(done), *map(_settings, ran)]) + "\n",
    ]
    return "\n".join(parts)


def _rows(done: Comparison) -> list[list[str]]:
    ours = done.reference
    rows = []
    for line in done.lines:
        if line.fit:
            fit, trials = line.fit, str(line.found.trials) if line.found else "none"
            seconds = [_seconds(fit.fit_seconds), _seconds(fit.predict_seconds)]
            memory = [f"{fit.peak_gb:.2f}", f"{fit.imported_gb:.2f}"]
            rows.append([line.contestant.name, *seconds, *memory, *_scores(fit.scores), trials, *_ratios(ours, fit)])
    if done.truth:
        rows.append(["the truth", "", "", "", "", *_scores(done.truth), "", "", ""])
    return rows


def _scores(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.4f}" for name in _SCORES]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _ratios(ours: Line | None, fit: Fit) -> list[str]:
    if ours is None or ours.fit is None:
        return ["", ""]
    return [_ratio(ours.fit.fit_seconds / fit.fit_seconds), _ratio(ours.fit.peak_gb / fit.peak_gb)]


def _reached(done: Comparison) -> list[str]:
    """For each of ours that was watched, how short a fit is as good as each of the others."""
    parts = []
    for line in done.lines:
        rows = []
        for other in done.lines:
            if not line.curve or other.contestant.ours or not other.fit:
                continue
            rmse, seconds = other.fit.scores["rmse"], other.fit.fit_seconds
            found = line.as_good.get(other.contestant.name)
            ours = ["never", "", "", ""]
            if found:
                took = found.fit.fit_seconds
                ours = [str(found.rounds), f"{found.fit.scores['rmse']:.4f}", _seconds(took), _ratio(took / seconds)]
            rows.append([other.contestant.name, f"{rmse:.4f}", _seconds(seconds), *ours])
        if rows:
            unit = capabilities(line.contestant.fixed["family"]).rounds
            parts.append(
                f"The shortest fit of {line.contestant.name} to all training rows that is as good, timed by itself "
                "without a look at how good it is:\n"
            )
            parts.append(table(("as good as", "RMSE", "its fit s", unit, "its RMSE", "s", "ratio"), rows))
    return parts


def _failures(done: Comparison) -> list[str]:
    return [f"- {line.contestant.name} did not run: {line.reason}" for line in done.lines if not line.fit]


def _notes(done: Comparison) -> list[str]:
    notes = []
    if done.reference and done.problems[0].test.timestamps is not None:
        notes.append(
            "- ours may learn from timestamps; those of test rows are given to time=true and to sessions, to no other"
        )
    for line in done.lines:
        if line.fit and line.fit.filled:
            notes.append(
                f"- {line.contestant.name} left out {line.fit.filled:,} test rows, which got the mean and biases"
            )
        if line.fit and "auc_of_rating" in line.fit.scores:
            scores = line.fit.scores
            notes.append(
                f"- {line.contestant.name} ranks by its probability of a like; by its rating AUC is "
                f"{scores['auc_of_rating']:.4f}, per user {scores['auc_per_user_of_rating']:.4f}"
            )
    return notes


def _settings(line: Line) -> str:
    chosen: Mapping[str, Any] = line.settings
    said = ", ".join(f"{name} {value}" for name, value in chosen.items()) or "its defaults"
    where = (
        f"best of {line.found.trials} trials in {line.found.seconds:g} s, validation RMSE {line.found.validation_rmse}"
        if line.found
        else "no search has been made"
    )
    failed = f", {line.found.failed} of them failed" if line.found and line.found.failed else ""
    return f"- {line.contestant.name}: {said} ({where}{failed})"


def plot(done: Comparison) -> Figure:
    """RMSE and AUC against the seconds of a fit; of ours also the way there."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ran = [(line, line.fit) for line in done.lines if line.fit]
    for number, (line, fit) in enumerate(ran):
        marker, colour = ("*" if line.contestant.ours else "o"), f"C{number}"
        for axes, name in ((left, "rmse"), (right, "auc")):
            point = fit.fit_seconds, fit.scores[name]
            axes.plot(*point, marker, color=colour, markersize=13 if marker == "*" else 8, label=line.contestant.name)
        if line.curve:
            left.plot(*zip(*line.curve, strict=True), "-", color=colour, lw=1.5)
    if done.truth:  # too far from all to be drawn to scale
        for axes, name, place in ((left, "rmse", 0.02), (right, "auc", 0.95)):
            axes.text(0.02, place, f"the truth: {done.truth[name]:.4f}", transform=axes.transAxes, fontsize="small")
    _frame(left, "RMSE of the test ratings (lower is better)", [fit.scores["rmse"] for _, fit in ran])
    _frame(right, "AUC of liked test ratings (higher is better)", [])
    right.legend(fontsize="small", loc="best")
    figure.suptitle(f"{done.name}: accuracy against fit time (line: one fit of ours, step by step)")
    return figure


def _frame(axes: Axes, label: str, values: list[float]) -> None:
    axes.set(xscale="log", xlabel="seconds of the fit", ylabel=label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, which="both")
    if values:  # the first steps of a curve lie far above all that is compared
        bottom = axes.get_ylim()[0]
        axes.set_ylim(bottom - 0.1 * (max(values) - bottom), max(values) + 0.3 * (max(values) - bottom) + 1e-3)
