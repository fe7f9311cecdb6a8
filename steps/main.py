"""Main: prepare, train several families, evaluate and promote, in one process under one parent run."""

from recsys.data.dataset import Dataset
from recsys.models.base.item_to_item import DENSE_ITEMS
from recsys.settings import Settings
from steps.evaluate import evaluate
from steps.prepare import prepare
from steps.promote import promote
from steps.support.entrypoint import run_step
from steps.support.parameters import (
    AUTO,
    EvaluateParameters,
    MainParameters,
    PrepareParameters,
    PromoteParameters,
    TrainParameters,
)
from steps.support.runs import open_run
from steps.train import train


def main(parameters: MainParameters) -> None:
    """Run the whole pipeline; every step is a child run with its own parameters, metrics and artifacts."""
    given = parameters.model_dump()

    def of(settings: type[Settings]) -> dict[str, object]:
        return {name: value for name, value in given.items() if name in settings.model_fields}

    with open_run("main") as run:
        run.log_parameters(parameters)
        dataset = prepare(PrepareParameters(**of(PrepareParameters)))
        families = parameters.families if parameters.families != AUTO else _families_for(dataset)
        for family in families.split(","):
            version = train(TrainParameters(**of(TrainParameters), family=family), dataset=dataset)
            evaluate(
                EvaluateParameters(folder=parameters.folder, model_name=parameters.model_name, version=version.number)
            )
        promote(PromoteParameters(**of(PromoteParameters)), dataset=dataset)
    print(f"\nnext: make ui, or score with mlflow.pyfunc.load_model('models:/{parameters.model_name}@champion')")


def _families_for(dataset: Dataset) -> str:
    """The families that are trained on a dataset where none are named."""
    if not dataset.implicit:
        return "matrix_factorization,random_forest,bayesian_mf"
    items = len(dataset.item_ids)
    chosen, held = ("ease", "fits") if items <= DENSE_ITEMS else ("neighbourhood", "does not fit")
    print(
        f"family {chosen}: a catalogue of {items:,} items {held} within the {DENSE_ITEMS:,} that ease takes by default"
    )
    return chosen


if __name__ == "__main__":
    run_step("main", main)
