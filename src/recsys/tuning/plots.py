"""A study in pictures: trials in, matplotlib figures out. No pyplot, so nothing global and no display."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from recsys.settings import to_text
from recsys.tuning.trials import best_trial, milliseconds, note_of, value_of

_COLOURS = {
    TrialState.COMPLETE: "#1f77b4",
    TrialState.PRUNED: "#aaaaaa",
    TrialState.FAIL: "#d62728",
    TrialState.RUNNING: "#2ca02c",
}
_ORANGE = "#ff7f0e"
_MOST_CURVES = 100  # the newest: more cannot be told apart
_FEWEST = 3  # completed trials, for a picture of how they differ


def study_figures(study: optuna.Study, metric: str) -> dict[str, Figure]:
    """All figures that the study's trials suffice for, by file name; `metric` names the value."""
    trials = study.get_trials(deepcopy=False)
    direction = study.direction.name.lower()
    label = f"validation {metric.replace('_', ' ').replace('auc', 'AUC')}"
    figures = {
        "optimisation_history.png": _history(trials, direction, label),
        "timeline.png": _timeline(trials),
    }
    if any(trial.intermediate_values for trial in trials):
        figures["intermediate_values.png"] = _intermediate(trials, direction)
    tried = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.params]
    names = [name for name in _names(tried) if len({to_text(trial.params.get(name)) for trial in tried}) > 1]
    if len(tried) >= _FEWEST and names and len({trial.value for trial in tried}) > 1:
        figures["slice.png"] = _slices(tried, names, label)
        figures["parallel_coordinates.png"] = _parallel(tried, names, direction, label)
        importances = _importances(study, names)
        if importances:
            figures["parameter_importances.png"] = _bars(importances, label)
    return figures


def _importances(study: optuna.Study, names: Sequence[str]) -> dict[str, float]:
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # of trials whose parameters have nothing in common
        return {}
    return {name: float(value) for name, value in found.items() if name in names}


def _history(trials: Sequence[FrozenTrial], direction: str, label: str) -> Figure:
    figure, axes = _figure("Optimisation history")
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    axes.plot([t.number for t in complete], [value_of(t) for t in complete], "o", color="#1f77b4", label="trial", ms=5)
    best = [best_trial(complete[: position + 1], direction) for position in range(len(complete))]
    axes.step(
        [t.number for t in complete], [value_of(t) for t in best if t], where="post", color=_ORANGE, label="best so far"
    )
    defaults = [t for t in complete if t.user_attrs.get("default")]
    if defaults:
        axes.axhline(value_of(defaults[0]), color="#888888", linestyle="--", label="default settings")
    axes.set(xlabel="trial", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def _timeline(trials: Sequence[FrozenTrial]) -> Figure:
    """Each worker a line, each trial a bar on it."""
    shown = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    workers = list(dict.fromkeys(_worker(trial) for trial in shown))
    figure, axes = _figure("Timeline of workers", height=1.6 + 0.35 * max(len(workers), 2))
    start = min((milliseconds(trial.datetime_start) for trial in shown), default=0)
    for trial in shown:
        begin = milliseconds(trial.datetime_start)
        length = max(milliseconds(trial.datetime_complete) - begin, 0)
        row = workers.index(_worker(trial))
        axes.barh(
            row,
            length / 1000,
            left=(begin - start) / 1000,
            color=_COLOURS[trial.state],
            edgecolor="white",
            linewidth=0.5,
        )
    axes.set_yticks(range(len(workers)), workers, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="seconds since the first trial", ylabel="worker")
    states = [state for state in _COLOURS if any(trial.state is state for trial in shown)]
    marks = [Line2D([], [], color=_COLOURS[state], lw=6, label=state.name.lower()) for state in states]
    axes.legend(handles=marks, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def _intermediate(trials: Sequence[FrozenTrial], direction: str) -> Figure:
    figure, axes = _figure("Values on the way")
    best = best_trial(trials, direction)
    shown = [trial for trial in trials if trial.intermediate_values][-_MOST_CURVES:]
    for trial in shown:
        steps, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        chosen = best is not None and trial.number == best.number
        colour = _ORANGE if chosen else _COLOURS[trial.state]
        style: dict[str, Any] = {"lw": 2.2, "zorder": 3} if chosen else {"lw": 0.9, "alpha": 0.7}
        axes.plot(steps, values, color=colour, marker="." if len(steps) < 8 else "", **style)
    lasts = [value for trial in shown if trial.state is TrialState.COMPLETE for value in _last_values(trial)]
    if lasts:  # one trial that went astray must not flatten the others
        low, high = np.quantile(lasts, [0.02, 1]) if direction == "maximize" else np.quantile(lasts, [0, 0.98])
        margin = 0.1 * (high - low) or 0.01
        axes.set_ylim(low - margin, high + margin)
    marks = [
        Line2D([], [], color=_ORANGE, lw=2.2, label="best trial"),
        Line2D([], [], color=_COLOURS[TrialState.COMPLETE], label="complete"),
        Line2D([], [], color=_COLOURS[TrialState.PRUNED], label="pruned"),
    ]
    axes.legend(handles=marks)
    axes.set(xlabel="epoch, sweep or fold", ylabel="value that the pruner compares")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _slices(trials: Sequence[FrozenTrial], names: Sequence[str], label: str) -> Figure:
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.8, 2.9 * rows + 0.5), layout="constrained")
    figure.suptitle("Value by parameter")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    dots: Any = None
    for position, (name, axes) in enumerate(
        zip([*names, *[""] * (rows * columns - len(names))], panels.flat, strict=True)
    ):
        if not name:
            axes.set_visible(False)
            continue
        having = [trial for trial in trials if name in trial.params]
        places, ticks = _axis(having, name)
        dots = axes.scatter(
            places,
            [value_of(t) for t in having],
            c=[t.number for t in having],
            cmap="viridis",
            s=22,
            edgecolor="white",
            lw=0.3,
        )
        axes.set_xlabel(name.replace("_", " "))
        if position % columns == 0:
            axes.set_ylabel(label)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
        elif getattr(having[0].distributions[name], "log", False):
            axes.set_xscale("log")
        axes.grid(alpha=0.25)
    figure.colorbar(dots, ax=panels, label="trial", fraction=0.03)
    return figure


def _parallel(trials: Sequence[FrozenTrial], names: Sequence[str], direction: str, label: str) -> Figure:
    """A line a trial over all parameters, coloured by its value: the best are drawn last."""
    figure, axes = _figure("Parallel coordinates", width=max(7.0, 1.5 * (len(names) + 1)), height=4.6)
    having = [trial for trial in trials if all(name in trial.params for name in names)] or list(trials)
    values = [value_of(trial) for trial in having]
    norm = Normalize(*np.quantile(values, [0.1, 1.0] if direction == "maximize" else [0.0, 0.9]))
    colours = colormaps["viridis" if direction == "maximize" else "viridis_r"]
    heights = [_heights(having, name, axes, position) for position, name in enumerate(names)]
    low, high = min(values), max(values)
    heights.append([(value - low) / (high - low) if high > low else 0.5 for value in values])
    _rail(axes, len(names), [f"{low:.4f}", f"{high:.4f}"], [0.0, 1.0])
    for place in sorted(range(len(having)), key=lambda k: values[k], reverse=direction == "minimize"):
        line = [height[place] for height in heights]
        axes.plot(range(len(line)), line, color=colours(norm(values[place])), lw=1.3, alpha=0.8)
    axes.set_xticks(range(len(names) + 1), [name.replace("_", "\n") for name in names] + [label.replace(" ", "\n", 1)])
    axes.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.2, len(names) + 0.45))
    axes.grid(visible=False)
    return figure


def _heights(trials: Sequence[FrozenTrial], name: str, axes: Axes, position: int) -> list[float]:
    """Where each trial crosses a parameter's rail, from 0 to 1; draws the rail."""
    places, ticks = _axis(trials, name)
    if ticks:
        most = max(len(ticks) - 1, 1)
        _rail(axes, position, ticks, [place / most for place in range(len(ticks))])
        return [place / most for place in places]
    log = getattr(trials[0].distributions[name], "log", False)
    scale: Callable[[float], float] = math.log if log else float
    low, high = min(places), max(places)
    _rail(axes, position, [f"{low:.3g}", f"{high:.3g}"], [0.0, 1.0])
    width = scale(high) - scale(low)
    return [(scale(place) - scale(low)) / width if width else 0.5 for place in places]


def _rail(axes: Axes, position: int, ticks: Sequence[str], heights: Sequence[float]) -> None:
    axes.axvline(position, color="#444444", lw=0.8)
    for tick, height in zip(ticks, heights, strict=True):
        axes.text(
            position + 0.03, height, tick, fontsize=8, va="center", bbox={"fc": "white", "ec": "none", "pad": 0.6}
        )


def _bars(importances: dict[str, float], label: str) -> Figure:
    names = sorted(importances, key=lambda name: importances[name])
    figure, axes = _figure("Parameter importances", height=1.4 + 0.4 * len(names))
    bars = axes.barh([name.replace("_", " ") for name in names], [importances[name] for name in names], color="#1f77b4")
    axes.bar_label(bars, [f"{importances[name]:.2f}" for name in names], padding=3, fontsize=8)
    axes.set(xlabel=f"share of the variance of {label} explained (fANOVA)", ylabel="parameter", xlim=(0, 1.08))
    return figure


def _axis(trials: Sequence[FrozenTrial], name: str) -> tuple[list[float], list[str]]:
    """A parameter's values as places on an axis, and, for choices, the text at 0, 1 and so on."""
    values = [trial.params[name] for trial in trials]
    distribution = trials[0].distributions[name]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        used = [choice for choice in distribution.choices if choice in values]
        return [float(used.index(value)) for value in values], [to_text(choice) for choice in used]
    return [float(value) for value in values], []


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _last_values(trial: FrozenTrial) -> list[float]:
    """The later half of a curve: its beginning is alike in all and takes the most room."""
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    return values[len(values) // 2 :] or [statistics.fmean(values)]


def _worker(trial: FrozenTrial) -> str:
    return str(note_of(trial).get("worker", "killed"))


def _figure(title: str, width: float = 7, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes
