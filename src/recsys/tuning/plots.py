"""A study in plots: Optuna's own, as matplotlib figures by file name."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from recsys.settings import to_text
from recsys.tuning.trials import value_of

_FEWEST = 3  # completed trials, for a plot of how they differ
_MOST_IN_LEGEND = 15  # trials: more do not fit beside the plot


def study_figures(study: optuna.Study, metric: str) -> dict[str, Figure]:
    """All figures that the study's trials suffice for, by file name; `metric` names the value."""
    trials = study.get_trials(deepcopy=False)
    label = f"validation {metric.replace('_', ' ').replace('auc', 'AUC')}"
    figures = {
        "optimisation_history.png": _drawn(lambda: _history(study, trials, label)),
        "timeline.png": _drawn(lambda: plots.plot_timeline(study)),
    }
    if any(trial.intermediate_values for trial in trials):
        figures["intermediate_values.png"] = _drawn(lambda: _intermediate_values(study, trials))
    tried = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.params]
    names = [name for name in _names(tried) if len({to_text(trial.params.get(name)) for trial in tried}) > 1]
    if len(tried) >= _FEWEST and names and len({trial.value for trial in tried}) > 1:
        figures["slice.png"] = _drawn(lambda: _slice(study, names, label))
        figures["parallel_coordinates.png"] = _drawn(lambda: _parallel_coordinates(study, names, label))
        with suppress(ValueError, RuntimeError):  # of trials whose parameters have nothing in common
            figures["parameter_importances.png"] = _drawn(lambda: _importances(study, names, label))
    return figures


def _drawn(draw: Callable[[], Axes]) -> Figure:
    """The figure of the axes that one of Optuna's functions draws on; the style that it sets is put back."""
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pyplot.switch_backend("agg")  # no window, whatever the machine has
        figure = _figure_of(draw())
        pyplot.close(figure)
        return figure


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _history(study: optuna.Study, trials: Sequence[FrozenTrial], label: str) -> Axes:
    axes = plots.plot_optimization_history(study, target_name=label)
    defaults = [t for t in trials if t.state is TrialState.COMPLETE and t.user_attrs.get("default")]
    if defaults:
        axes.axhline(value_of(defaults[0]), color="#888888", linestyle="--", label="default settings")
        axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _intermediate_values(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Axes:
    axes = plots.plot_intermediate_values(study)
    legend = axes.get_legend()
    if legend is not None and len(trials) > _MOST_IN_LEGEND:
        legend.remove()
    later = [value for trial in trials if trial.state is TrialState.COMPLETE for value in _later_values(trial)]
    if later:  # one trial that went astray must not flatten the others
        worst = np.quantile(later, [0.02, 1] if study.direction.name == "MAXIMIZE" else [0, 0.98])
        margin = 0.1 * (worst[1] - worst[0]) or 0.01
        axes.set_ylim(worst[0] - margin, worst[1] + margin)
    return axes


def _slice(study: optuna.Study, names: list[str], label: str) -> Axes:
    panels = np.ravel(np.asarray(plots.plot_slice(study, names, target_name=label)))
    for axes in panels:  # labels of a logarithmic axis run into each other otherwise
        axes.tick_params(axis="x", which="both", labelrotation=45, labelsize=8)
    first: Axes = panels[0]
    _figure_of(first).set_layout_engine("constrained" if len(panels) > 1 else "tight")
    return first


def _parallel_coordinates(study: optuna.Study, names: list[str], label: str) -> Axes:
    axes = plots.plot_parallel_coordinate(study, names, target_name=label)
    figure = _figure_of(axes)
    figure.set_size_inches(max(12, 1.6 * (len(names) + 2)), 5.5)  # narrower, the labels meet
    figure.subplots_adjust(bottom=0.25)  # for the names, which are drawn slanting
    return axes


def _importances(study: optuna.Study, names: list[str], label: str) -> Axes:
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    axes = plots.plot_param_importances(study, evaluator=evaluator, params=names, target_name=label)
    axes.set_title(axes.get_title(loc="left"))
    axes.set_title("", loc="left")
    _figure_of(axes).set_layout_engine("constrained")
    return axes


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _later_values(trial: FrozenTrial) -> list[float]:
    """The later half of a curve: its beginning is alike in all and takes the most room."""
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    return values[len(values) // 2 :]
