"""Search for a family's settings: the room of Optuna."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.dataset import Dataset
from recsys.errors import DivergedError, InputError
from recsys.evaluation import evaluate
from recsys.families import family_module
from recsys.settings import Settings
from recsys.training import train

_SPARED_TRIALS = 5  # what the pruner lets run to the end before it compares
_INTERMEDIATE = "validation_rmse"


@dataclass(frozen=True, eq=False)
class Search:
    """The outcome: the best settings, their validation AUC, and the whole study."""

    config: Settings
    value: float
    trial: int
    study: optuna.Study

    def counts(self) -> dict[str, int]:
        """How many trials ended in each state."""
        states = [trial.state for trial in self.study.trials]
        return {
            f"trials_{state.name.lower()}": states.count(state)
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        }

    def figures(self) -> dict[str, Figure]:
        """Figures of the study by file name."""
        figures = {"optimisation_history.png": _history(self.study)}
        complete = [trial for trial in self.study.trials if trial.state is TrialState.COMPLETE]
        if len({trial.value for trial in complete}) > 1 and len(complete) > 2:
            importances = optuna.importance.get_param_importances(
                self.study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
            figures["parameter_importances.png"] = _bars(importances)
        return figures


def search(
    family: str,
    dataset: Dataset,
    *,
    trials: int,
    timeout: float | None,
    seed: int,
    storage: str,
    study_name: str,
    on_trial: Callable[[FrozenTrial, Mapping[str, object]], None],
) -> Search:
    """Maximise the AUC on the validation rows; trial 0 of a new study is the family's default.

    Args:
        timeout: seconds after which no further trial starts.
        storage: SQLAlchemy URL of Optuna's storage; a study of this name that is there is continued.
        on_trial: called when a trial has ended, with the settings it tried.

    Raises:
        InputError: if the storage cannot be used, the study belongs to another search, or no trial completed.
    """
    # Its warning of a failed trial is a traceback; on_trial hears of the failure too.
    optuna.logging.get_logger("optuna").setLevel(logging.ERROR)
    module = family_module(family)
    study = _open(study_name, storage, family, dataset, seed)
    tried: dict[int, Settings] = {}

    def objective(trial: Trial) -> float:
        config = module.Config() if trial.user_attrs.get("default") else module.suggest(trial)
        tried[trial.number] = config
        trial.set_user_attr("config", config.model_dump())

        def report(epoch: int, metrics: dict[str, float]) -> None:
            if _INTERMEDIATE in metrics:
                trial.report(-metrics[_INTERMEDIATE], epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        chosen = train(family, dataset, config, seed=seed, refit=False, report=report).chosen
        measured = evaluate(chosen, dataset, part="validation", ranking=False, baselines=False)
        for name, value in measured.metrics.items():
            trial.set_user_attr(name, value)
        if "auc" not in measured.metrics:
            raise InputError(f"metric 'auc' is undefined on the validation rows: {measured.undefined['auc']}")
        return measured.metrics["auc"]

    def ended(study: optuna.Study, trial: FrozenTrial) -> None:
        on_trial(trial, tried[trial.number].model_dump() if trial.number in tried else {})

    study.optimize(objective, n_trials=trials, timeout=timeout, callbacks=[ended], catch=(DivergedError,))
    try:
        best = study.best_trial
    except ValueError:
        raise InputError(f"study {study_name!r}: no trial completed; pass more trials or a longer timeout") from None
    return Search(module.Config(**best.user_attrs["config"]), float(best.value or 0.0), best.number, study)


def _open(name: str, storage: str, family: str, dataset: Dataset, seed: int) -> optuna.Study:
    belongs = {"family": family, "data_version": dataset.digest}
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_SPARED_TRIALS, n_warmup_steps=2),
        )
    except Exception as error:
        # SQLAlchemy and the database's driver each raise their own errors here; the URL may hold a password.
        raise InputError(
            f"parameter 'storage': a database that Optuna can use is needed, got a {type(error).__name__} "
            f"when opening it; check the URL, or leave storage out to use studies.db"
        ) from None
    for key, value in belongs.items():
        if study.user_attrs.setdefault(key, value) != value:
            raise InputError(
                f"study {name!r} belongs to {key} {study.user_attrs[key]}, got {value}; pass another -P study=…"
            )
        study.set_user_attr(key, value)
    if not study.trials:
        study.enqueue_trial({}, user_attrs={"default": True})
    return study


def _history(study: optuna.Study) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Axes = figure.add_subplot()
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    numbers = [trial.number for trial in complete]
    values = [trial.value or 0.0 for trial in complete]
    best = [max(values[: position + 1]) for position in range(len(values))]
    axes.plot(numbers, values, "o", color="#1f77b4", label="trial")
    axes.step(numbers, best, where="post", color="#ff7f0e", label="best so far")
    axes.set(title="Optimisation history", xlabel="trial", ylabel="validation AUC")
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


def _bars(values: Mapping[str, float]) -> Figure:
    from recsys.plots import importances

    figure = importances(values)
    figure.axes[0].set(
        title="Parameter importances", xlabel="share of the AUC's variance explained (fANOVA)", ylabel="parameter"
    )
    return figure
