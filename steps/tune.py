"""Tune: a family's settings searched on validation rows, the best trained and registered."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.settings import to_text
from steps.parameters import TrainParameters, TuneParameters
from steps.prepare import prepare_once
from steps.runs import open_run
from steps.shell import run_step
from steps.train import train

if TYPE_CHECKING:
    from registry.versions import Version


def tune(parameters: TuneParameters) -> "Version":
    """Search, with one child run a trial, then train the best settings on all rows that are not test."""
    from recsys import tuning

    with open_run(f"tune {parameters.family}", model_type=parameters.family) as run:
        run.log_parameters(parameters)
        dataset = prepare_once(parameters, parameters.folder)
        run.set_tags({"data_version": dataset.digest})
        run.log_dataset(dataset, "tuning")
        name = parameters.study if parameters.study != "auto" else f"{parameters.family}-{dataset.digest[:12]}"
        default = os.environ.get("RECSYS_STUDY_STORAGE") or f"sqlite:///{parameters.folder}/studies.db"
        storage = parameters.storage if parameters.storage != "auto" else default

        def record(trial: Any, config: Mapping[str, object]) -> None:
            state = trial.state.name
            value = f"validation AUC {trial.value:.4f}" if state == "COMPLETE" else state.lower()
            seconds = trial.duration.total_seconds() if trial.duration else 0.0
            shown = ", ".join(f"{key}={_short(setting)}" for key, setting in trial.params.items()) or "the defaults"
            print(f"trial {trial.number}: {value} ({seconds:.1f} s; {shown})", flush=True)
            with open_run(f"trial {trial.number}", state=state, study=name) as child:
                child.log_values(config)
                measured = {key: v for key, v in trial.user_attrs.items() if isinstance(v, float)}
                child.log_metrics({f"validation_{key}": v for key, v in measured.items()} | {"seconds": seconds})
                for step, intermediate in trial.intermediate_values.items():
                    child.log_progress(step, {"epoch_validation_rmse": -intermediate})

        found = tuning.search(
            parameters.family,
            dataset,
            trials=parameters.trials,
            timeout=parameters.timeout,
            seed=parameters.seed,
            storage=storage,
            study_name=name,
            on_trial=record,
        )
        run.log_metrics({"best_validation_auc": found.value, **found.counts()})
        run.log_figures(found.figures())
        run.log_json(found.config.model_dump(), "best_params.json")
        print(f"best of {len(found.study.trials)} trials: trial {found.trial}, validation AUC {found.value:.4f}")
        kept = parameters.model_dump(include=set(TrainParameters.model_fields))
        return train(TrainParameters(**kept), found.config, dataset, {"study": name, "trial": str(found.trial)})


def _short(setting: object) -> str:
    return f"{setting:.4g}" if isinstance(setting, float) else to_text(setting)


if __name__ == "__main__":
    run_step("tune", tune)
