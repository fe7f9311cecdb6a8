"""Retrain: a champion trained anew from its ratings and the feedback since, where there is a reason, and promoted."""

from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.prepare import prepare_once
from steps.promote import promote
from steps.support.entrypoint import run_step
from steps.support.parameters import PromoteParameters, TrainParameters, TuneParameters
from steps.support.repeat import repeat
from steps.support.retraining import Origin, Standing, find_standing, gather
from steps.support.retraining_parameters import RetrainParameters
from steps.support.runs import open_run
from steps.train import train
from steps.tune import tune

if TYPE_CHECKING:
    from recsys.data.dataset import Dataset
    from recsys.models.base.recommender import Recommender
    from recsys.retraining.reasons import Reason
    from recsys.tracking.runs import Run
    from registry.lease import Lease
    from registry.versions import Version

_MODEL, _CHAMPION, _OUTCOME, _DUE = "retrain.model", "retrain.champion", "retrain.outcome", "retrain.due"


def retrain(parameters: RetrainParameters) -> str:
    """Look once, or again and again; what came of the last look: promoted, on trial, kept, not due, dry run or busy."""
    return repeat(lambda: _look(parameters), parameters.every)


def _look(parameters: RetrainParameters) -> str:
    from registry.lease import HeldError, held

    with open_run("retrain") as run:
        run.log_parameters(parameters)
        run.set_tags({_MODEL: parameters.model_name})
        find_standing(parameters)  # what is wrong with the parameters is told at once
        try:
            with held(parameters.model_name, run.run_id) as lease:
                _bury(lease)
                standing = find_standing(parameters)  # another's retraining may have ended meanwhile
                run.set_tags({_CHAMPION: str(standing.champion.number)})
                outcome, sentence = _retrain(parameters, standing, run, lease)
        except HeldError as error:
            outcome, sentence = "busy", f"another retraining of {parameters.model_name} is under way: {error}"
        run.set_tags({_OUTCOME: outcome})
        run.describe(sentence, f"retrain: {outcome}")
        print(sentence, flush=True)
    return outcome


def _bury(lease: "Lease") -> None:
    """Show the run of a retraining that was killed as such."""
    if lease.succeeded is None:
        return
    from recsys.tracking import runs

    print(f"note: run {lease.succeeded}, which retrained before, gave no sign any more and is shown as killed")
    runs.end_abandoned(lease.succeeded)


def _retrain(parameters: RetrainParameters, standing: Standing, run: "Run", lease: "Lease") -> tuple[str, str]:
    from recsys.retraining.reasons import weigh

    champion, found = standing.champion, standing.situation
    reasons = weigh(found, parameters)
    due = [reason for reason in reasons if reason.holds]
    run.log_metrics({"new_ratings": found.new, "learnt_ratings": found.learnt, "due": float(bool(due))})
    run.log_json({"reasons": [reason.__dict__ for reason in reasons], "situation": found.__dict__}, "reasons.json")
    for note in standing.notes:
        print(f"note: {note}")
    for reason in reasons:
        print(f"{'yes' if reason.holds else 'no':<4}{reason.name}: {reason.sentence}")
    run.set_tags({_DUE: ", ".join(reason.name for reason in due) or "none"})
    if standing.on_trial is not None and parameters.trial is not None:
        return "not due", f"version {standing.on_trial} is on trial: nothing is retrained until that has ended"
    if not due:
        return "not due", f"version {champion.number} stays as it is: no reason to retrain it"
    if parameters.dry_run:
        return "dry run", f"version {champion.number} is due ({_named(due)}); dry run, nothing is trained"
    gathered = gather(parameters, standing)
    print(gathered.sentence, flush=True)
    run.log_metrics(gathered.counts)
    dataset = prepare_once(gathered.preparation, parameters.folder, parameters.memory, parameters.on_change)
    run.log_dataset(dataset, "retraining")
    version = _train(parameters, standing, dataset, gathered.origin)
    run.set_tags({"version": str(version.number), "data_version": dataset.digest})
    lease.check()
    given = parameters.model_dump(include=set(PromoteParameters.model_fields))
    asked = {"dataset": dataset.digest, "version": version.number, "dry_run": False}
    decision = promote(PromoteParameters(**given | asked), dataset)
    run.set_tags(gathered.origin.tags())  # from here on what was tried is not new any more
    if decision.winner == version.number and parameters.trial is not None:
        return "on trial", f"version {version.number}, trained because of {_named(due)}: {decision.reason}"
    if decision.winner == version.number:
        return "promoted", f"version {version.number}, trained because of {_named(due)}: {decision.reason}"
    return "kept", f"version {version.number}, trained because of {_named(due)}, is not better: {decision.reason}"


def _named(reasons: "list[Reason]") -> str:
    return " and ".join(reason.name for reason in reasons)


def _train(parameters: RetrainParameters, standing: Standing, dataset: "Dataset", origin: Origin) -> "Version":
    """A new version: of the champion's family, by its settings or by a search for others."""
    champion, family = standing.champion, str(standing.champion.family)
    given = {
        **standing.train,
        **dataset.preparation.model_dump(),
        "folder": parameters.folder,
        "model_name": parameters.model_name,
        "memory": parameters.memory,
        "on_change": parameters.on_change,
        "experiment": parameters.experiment,
        "family": family,
    }
    # The name of the ratings stays: by it a server finds titles.
    mark = {"retrained_from": str(champion.number), "ratings": origin.name}
    if parameters.tune:
        from recsys.tracking import runs
        from registry import versions

        kept = {name: value for name, value in given.items() if name in TuneParameters.model_fields}
        version = tune(TuneParameters(**kept, trials=parameters.trials, timeout=parameters.timeout))
        assert version is not None  # it registers
        runs.add_tags(version.run_id, origin.tags())
        for key, value in mark.items():
            versions.tag(version, key, value)
        return version
    recommender = standing.recommender()
    earlier = _whom_to_go_on_from(parameters, standing, dataset, recommender)
    warm_start = champion.number if earlier else "none"
    return train(
        TrainParameters(**given, warm_start=warm_start),
        recommender.config,
        dataset,
        origin.tags(),
        mark,
        earlier=earlier,
    )


def _whom_to_go_on_from(
    parameters: RetrainParameters, standing: Standing, dataset: "Dataset", recommender: "Recommender"
) -> "Recommender | None":
    from recsys.training import out_of_core
    from recsys.training.warm_start import divide_anew

    if not parameters.warm_start:
        return None
    family, number = str(standing.champion.family), standing.champion.number
    gigabytes = None if parameters.memory == "auto" else parameters.memory
    reason = "a training in several processes, from disk or from a feature store starts anew"
    alone = standing.train.get("processes", 1) == 1 and not standing.train.get("feature_store")
    if alone and not out_of_core.is_needed(family, dataset, gigabytes):
        try:
            divide_anew(dataset, recommender, family)
            print(f"the training goes on from version {number}, with its choices")
            return recommender
        except InputError as error:
            reason = str(error)
    print(f"the training does not go on from version {number}: {reason}")
    return None


if __name__ == "__main__":
    run_step("retrain", retrain)
