"""Main: prepare, train several families, evaluate and promote, in one process under one parent run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from recsys.models.base.item_to_item import DENSE_ITEMS
from recsys.settings import Settings
from steps import PROJECT
from steps.evaluate import evaluate
from steps.prepare import prepare
from steps.promote import promote
from steps.report import NAME, find_decision, make_report
from steps.support.decision_record import comparison_table
from steps.support.entrypoint import run_step
from steps.support.parameter_groups import AUTO
from steps.support.parameters import (
    EvaluateParameters,
    MainParameters,
    PrepareParameters,
    PromoteParameters,
    TrainParameters,
)
from steps.support.runs import open_run
from steps.support.stages import set_position, stage
from steps.train import train

if TYPE_CHECKING:
    from recsys.tracking.runs import Run
    from registry.policy import Decision


FOR_RATINGS = "matrix_factorization,random_forest,bayesian_mf"


def main(parameters: MainParameters) -> None:
    """Run the whole pipeline; every step is a child run with its own parameters, metrics and artifacts."""
    given = parameters.model_dump()

    def of(settings: type[Settings]) -> dict[str, object]:
        return {name: value for name, value in given.items() if name in settings.model_fields}

    with open_run("main") as run:
        run.log_parameters(parameters)
        run.describe(f"prepare {Path(parameters.ratings).name}, train {parameters.families}, evaluate and promote")
        named = parameters.families if parameters.families != AUTO else FOR_RATINGS
        set_position(1, 2 * len(named.split(",")) + 2)
        dataset = prepare(PrepareParameters(**of(PrepareParameters)))
        families = (named if parameters.families != AUTO else _families_for(dataset)).split(",")
        steps = 2 * len(families) + 2
        for number, family in enumerate(families, 1):
            set_position(2 * number, steps)
            version = train(TrainParameters(**of(TrainParameters), family=family), dataset=dataset)
            set_position(2 * number + 1, steps)
            asked = {"folder": parameters.folder, "model_name": parameters.model_name, "version": version.number}
            evaluate(EvaluateParameters(**asked), dataset)
        set_position(steps, steps)
        decision = promote(PromoteParameters(**of(PromoteParameters)), dataset=dataset)
        run.describe(decision.reason)
        run.log_table(comparison_table(decision, decision.changes), "comparison.csv")
        run.log_metrics(_metrics_of(decision))
        _log_report(parameters, run)
    looking = f"next: {_how_to_look(Path(parameters.folder))}"
    if decision.winner is not None:
        looking += f", or score with mlflow.pyfunc.load_model('models:/{parameters.model_name}@champion')"
    print(f"\n{looking}")


def _log_report(parameters: MainParameters, run: "Run") -> None:
    """The report of what was just decided, among the artifacts of the run; a decision on nothing measured has none."""
    with stage("report"):
        try:
            decision = find_decision(parameters.model_name, None, run.run_id)
            _, html = make_report(parameters.model_name, decision, parameters, obtain=False)
        except InputError as error:
            print(f"note: no report ({error})")
            return
    run.log_text(html, NAME)


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


def _families_for(dataset: Dataset) -> str:
    """The families that are trained on a dataset where none are named."""
    if not dataset.implicit:
        return FOR_RATINGS
    items = len(dataset.item_ids)
    chosen, held = ("ease", "fits") if items <= DENSE_ITEMS else ("neighbourhood", "does not fit")
    print(
        f"family {chosen}: a catalogue of {items:,} items {held} within the {DENSE_ITEMS:,} that ease takes by default"
    )
    return chosen


if __name__ == "__main__":
    run_step("main", main)
