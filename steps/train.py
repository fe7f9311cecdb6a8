"""Train: a dataset and a family in, a registered version out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.data.dataset import Dataset
from recsys.errors import InputError, JoinedError
from recsys.models.base.capabilities import capabilities
from recsys.models.base.family import check_feedback, family_module
from recsys.settings import Settings, parse_settings, to_text
from steps import PROJECT
from steps.prepare import gigabytes_of, prepare_once
from steps.support import feature_store, provenance
from steps.support.distributed import agent_of, fitting_together
from steps.support.entrypoint import connect, read_params, run_step
from steps.support.parameters import TrainParameters
from steps.support.runs import made_by, open_run
from steps.support.stages import Stage, stage

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender
    from recsys.tracking.runs import Run
    from recsys.training.launch.agent_process import AgentProcess
    from recsys.training.trainer import FitAll
    from registry.versions import Version


def train(
    parameters: TrainParameters,
    config: Settings | None = None,
    dataset: Dataset | None = None,
    tags: dict[str, str] | None = None,
    mark: dict[str, str] | None = None,
    once: "Callable[[Callable[[], Version]], Version] | None" = None,
    earlier: "Recommender | None" = None,
    agent: "AgentProcess | None" = None,
) -> "Version":
    """Train one family, log the model and register it.

    Args:
        config: the family's settings; its defaults where None.
        dataset: where the caller has it already, else it is found or prepared.
        tags: further tags of the run.
        mark: further tags of the version.
        once: given what registers the version, calls it, or answers with a version that is to stand instead.
        earlier: the recommender of the version that `warm_start` names, where the caller has it already.
        agent: what starts the processes that train together, where the caller has started it already.
    """
    from registry import signing

    family = parameters.family
    config = config or parse_settings(family_module(family).Config, read_params(parameters))
    if parameters.from_run:
        config = _settings_of_run(parameters, config)
    signing.check_signing_key()
    joined = None
    with open_run(f"train {family}", model_type=family, **(tags or {})) as run:
        run.log_parameters(parameters)
        run.log_parameters(config)
        dataset = dataset or prepare_once(parameters, parameters.folder, parameters.memory, parameters.on_change)
        run.set_tags({"data_version": dataset.digest})
        run.log_dataset(dataset, "training")
        check_feedback(family, dataset)
        if not parameters.together:
            return _train_and_register(parameters, config, dataset, mark, once, run, earlier=earlier)
        try:
            with fitting_together(parameters, config, dataset, run, agent) as (recording, fit_all):
                return _train_and_register(parameters, config, dataset, mark, once, recording, fit_all)
        except JoinedError as error:
            run.set_tags({"joined_run": error.run_id})
            joined = error
    raise joined


def train_as_program(parameters: TrainParameters, config: Settings | None) -> None:
    """Connect to MLflow and `train`. Processes that train together import what they need while this one does."""
    with agent_of(parameters) as agent:
        connect(parameters)
        train(parameters, config, agent=agent)


def _train_and_register(
    parameters: TrainParameters,
    config: Settings,
    dataset: Dataset,
    mark: dict[str, str] | None,
    once: "Callable[[Callable[[], Version]], Version] | None",
    run: "Run",
    fit_all: "FitAll | None" = None,
    earlier: "Recommender | None" = None,
) -> "Version":
    from recsys.evaluation import evaluator, plots
    from recsys.evaluation.forward import evaluate_forward
    from recsys.training import out_of_core, trainer
    from registry import documents, integrity, versions
    from registry.forward import DOCUMENT, describe_forward, pack_forward

    family = parameters.family
    gigabytes = gigabytes_of(parameters.memory)
    streamed = out_of_core.is_needed(family, dataset, gigabytes)
    if parameters.warm_start != "none":
        dataset, earlier, number = going_on(parameters, dataset, earlier, streamed=streamed)
        mark = {**(mark or {}), "warm_start": str(number)}
    if streamed:
        print("the training rows do not fit in the memory allowed: they are read from disk in every epoch", flush=True)
    with stage(f"train {family}") as under_way:
        history = History(run, under_way, config.model_dump().get(capabilities(family).rounds))
        done = trainer.train(
            family,
            dataset,
            config,
            seed=parameters.seed,
            refit=parameters.refit,
            lists=parameters.lists,
            report=history.report,
            gigabytes=gigabytes,
            fit_all=fit_all,
            forward=parameters.forward,
            stored=feature_store.point_in_time(parameters, dataset) if parameters.feature_store else None,
            warm_start=earlier,
            begin=under_way.begin,
        )
    measured = evaluator.evaluate(done.chosen, dataset, part="validation", ranking=False, baselines=False)
    validation = {f"validation_{name}": value for name, value in measured.metrics.items()}
    forward = evaluate_forward(done.forward.recommender, done.forward.dataset) if done.forward else None
    if not dataset.implicit:
        run.log_figures({"validation_confusion_matrix.png": plots.confusion(measured)})
    history.log_plot()
    run.log_values({f"chosen_{name}": value for name, value in done.final.choices().items()})
    _log_importances(run, done.final)
    model_id = run.log_recommender(done.final, PROJECT / "requirements.txt", own_names(dataset))
    # Only now, with the model: MLflow copies a run's earlier metrics to it without the dataset's digest.
    logged = validation | (forward.metrics if forward else {}) | {"training_rows": len(done.final.knowledge.seen)}
    run.log_model_metrics(logged, model_id, dataset)
    if forward:
        documents.keep(run.run_id, DOCUMENT, pack_forward(forward))
    told = versions.describe(
        family, made_by() | _about(dataset), measured.metrics, forward.metrics if forward else None
    )
    tags = _version_tags(family, dataset) | (mark or {})
    tags |= integrity.seal(model_id, provenance.predicate(parameters, config, dataset, run.run_id))

    def register() -> "Version":
        return versions.register(run.run_id, model_id, parameters.model_name, tags, told)

    version = once(register) if once else register()
    run.set_tags({"version": str(version.number)})
    shown = ", ".join(f"{name} {measured.metrics[name]:.4f}" for name in ("rmse", "auc") if name in measured.metrics)
    said = f"registered version {version.number} of {version.name}: {family}, validation {shown}"
    print(said)
    run.describe(said)
    if forward:
        print(describe_forward(forward.metrics))
    elif parameters.forward and parameters.feature_store:
        print("note: no measures on the newest ratings: the feature store knows them already")
    elif parameters.forward and streamed:
        print("note: no measures on the newest ratings: a training from disk has none")
    if chosen := done.final.choices():
        print("chosen on validation: " + ", ".join(_chosen(name, value, config) for name, value in chosen.items()))
    for name, reason in measured.undefined.items():
        print(f"note: validation {name} is undefined: {reason}")
    return version


def _settings_of_run(parameters: TrainParameters, given: Settings) -> Settings:
    """The settings that a search found, less those that were given singly."""
    from recsys.tracking import studies

    found = studies.read_json(parameters.from_run, "best_params.json")
    singly = {name: getattr(given, name) for name in given.model_fields_set}
    try:
        return parse_settings(type(given), {**found, **singly})
    except InputError as error:
        raise InputError(f"parameter 'from_run': the settings of run {parameters.from_run}: {error}") from None


def going_on(
    parameters: TrainParameters, dataset: Dataset, earlier: "Recommender | None", *, streamed: bool
) -> "tuple[Dataset, Recommender, int]":
    """The dataset divided anew, and whom a training goes on from; raises InputError where it may not."""
    from recsys.training.warm_start import divide_anew
    from registry import integrity, transitions, versions

    given = parameters.warm_start
    number = transitions.read_state(parameters.model_name).champion if given == "champion" else int(given)
    if number is None:
        raise InputError(f"parameter 'warm_start': model {parameters.model_name!r} has no champion to go on from")
    if streamed:
        raise InputError("parameter 'warm_start': none for rows that are read from disk, got " + repr(given))
    if earlier is None:
        earlier = integrity.load_version(versions.find_or_raise_version(parameters.model_name, number))
    try:
        return divide_anew(dataset, earlier, parameters.family), earlier, number
    except InputError as error:
        raise InputError(f"parameter 'warm_start': version {number}: {error}; pass warm_start=none") from None


class History:
    """Sends a family's progress to a run and to the terminal, and keeps it for the plot; `most` rounds may come."""

    def __init__(self, run: "Run", under_way: Stage, most: int | None) -> None:
        self.run, self.under_way, self.most = run, under_way, most
        self._logged: dict[str, set[int]] = {}
        self.curves: dict[str, list[tuple[int, float]]] = {}

    def report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Take the metrics of one epoch."""
        counted = int(metrics.get("draws_kept", epoch))  # 0 while it is open how many rounds come before the draws
        self.under_way.report(epoch, metrics, self.most - counted if self.most and counted else None)
        values = {f"epoch_{name}": value for name, value in metrics.items()}
        for name in values.keys() - self._logged.keys():
            self._logged[name] = self.run.progress_steps(name) if self.run.goes_on else set()
        new = {name: value for name, value in values.items() if epoch not in self._logged[name]}
        self.run.log_progress(epoch, new)
        for name, value in metrics.items():
            self.curves.setdefault(name, []).append((epoch, value))

    def log_plot(self) -> None:
        """Plot the curves, if the family reported any."""
        from recsys.evaluation import plots

        self.run.flush()
        curves = {name: points for name, points in self.curves.items() if name.endswith("rmse")}
        if curves:
            chosen = curves.get("validation_rmse")
            best = min(chosen, key=lambda point: point[1])[0] if chosen else None
            unkept = [epoch for epoch, draws in self.curves.get("draws_kept", []) if not draws]
            burn_in = max(unkept, default=None)
            self.run.log_figures({"learning.png": plots.loss_per_epoch(curves, best, burn_in)})


def _chosen(name: str, value: object, config: Settings) -> str:
    """A choice in words; of rounds that ended early, how many there might have been."""
    most = config.model_dump().get(name)
    of = f" of at most {most}" if type(value) is type(most) is int and value < most else ""
    return f"{name} {to_text(value)}{of}"


def _log_importances(run: "Run", recommender: "Recommender") -> None:
    import pandas as pd

    from recsys.evaluation import plots

    values = recommender.importances()
    if values:
        table = pd.DataFrame({"feature": list(values), "importance": list(values.values())})
        run.log_table(table.sort_values("importance", ascending=False), "feature_importances.csv")
        run.log_figures({"feature_importances.png": plots.importances(values)})


def own_names(dataset: Dataset) -> dict[str, str]:
    """The names of the columns in the ratings, where they are not those that a model takes anyway."""
    made = dataset.preparation
    found = {"user_id": made.user_column, "item_id": made.item_column, "timestamp": made.timestamp_column}
    return {name: own for name, own in found.items() if own not in found}


def _about(dataset: Dataset) -> dict[str, str]:
    made = dataset.preparation
    return {"ratings": made.ratings, "data_version": dataset.digest, "split": made.split}


def _version_tags(family: str, dataset: Dataset) -> dict[str, str]:
    """What lists of versions are filtered by: few and short, so that a row stays a line."""
    ratings = Path(dataset.preparation.ratings).name
    tags = {"family": family, "ratings": ratings, "data_version": dataset.digest}
    return tags | ({"feedback": "implicit"} if dataset.implicit else {})


if __name__ == "__main__":
    run_step("train", train_as_program, connected=False)
