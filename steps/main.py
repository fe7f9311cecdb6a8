"""Main: prepare, train several families, evaluate and promote, in one process under one parent run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recsys.settings import Settings
from steps import PROJECT
from steps.evaluate import evaluate
from steps.prepare import prepare
from steps.promote import promote
from steps.support.decision_record import comparison_table
from steps.support.entrypoint import run_step
from steps.support.parameters import (
    EvaluateParameters,
    MainParameters,
    PrepareParameters,
    PromoteParameters,
    TrainParameters,
)
from steps.support.runs import open_run
from steps.support.stages import set_position
from steps.train import train

if TYPE_CHECKING:
    from registry.policy import Decision


def main(parameters: MainParameters) -> None:
    """Run the whole pipeline; every step is a child run with its own parameters, metrics and artifacts."""
    given = parameters.model_dump()

    def of(settings: type[Settings]) -> dict[str, object]:
        return {name: value for name, value in given.items() if name in settings.model_fields}

    with open_run("main") as run:
        run.log_parameters(parameters)
        run.describe(f"prepare {Path(parameters.ratings).name}, train {parameters.families}, evaluate and promote")
        families = parameters.families.split(",")
        steps = 2 * len(families) + 2
        set_position(1, steps)
        dataset = prepare(PrepareParameters(**of(PrepareParameters)))
        for number, family in enumerate(families, 1):
            set_position(2 * number, steps)
            version = train(TrainParameters(**of(TrainParameters), family=family), dataset=dataset)
            set_position(2 * number + 1, steps)
            evaluate(
                EvaluateParameters(folder=parameters.folder, model_name=parameters.model_name, version=version.number)
            )
        set_position(steps, steps)
        decision = promote(PromoteParameters(**of(PromoteParameters)), dataset=dataset)
        run.describe(decision.reason)
        run.log_table(comparison_table(decision, decision.changes), "comparison.csv")
        run.log_metrics(_metrics_of(decision))
    looking = f"next: {_how_to_look(Path(parameters.folder))}"
    if decision.winner is not None:
        looking += f", or score with mlflow.pyfunc.load_model('models:/{parameters.model_name}@champion')"
    print(f"\n{looking}")


def _how_to_look(folder: Path) -> str:
    """What shows the runs in a browser."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith("http"):
        parts = urlsplit(uri)
        return f"open {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if folder.resolve() == PROJECT and uri == f"sqlite:///{PROJECT / 'mlflow.db'}":
        return "make ui"
    return f"mlflow ui --backend-store-uri {uri}"


def _metrics_of(decision: "Decision") -> dict[str, float]:
    """What the version in Production was measured to do."""
    found = [a.candidate.metrics for a in decision.assessments if a.candidate.number == decision.winner]
    return found[0] if found else {}


if __name__ == "__main__":
    run_step("main", main)
