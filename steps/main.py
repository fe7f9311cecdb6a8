"""Main: prepare, train several families, evaluate and promote, in one process under one parent run."""

from recsys.settings import Settings
from steps.evaluate import evaluate
from steps.prepare import prepare
from steps.promote import promote
from steps.support.entrypoint import run_step
from steps.support.parameters import (
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
        for family in parameters.families.split(","):
            version = train(TrainParameters(**of(TrainParameters), family=family), dataset=dataset)
            evaluate(
                EvaluateParameters(folder=parameters.folder, model_name=parameters.model_name, version=version.number)
            )
        promote(PromoteParameters(**of(PromoteParameters)), dataset=dataset)
    print(f"\nnext: make ui, or score with mlflow.pyfunc.load_model('models:/{parameters.model_name}@champion')")


if __name__ == "__main__":
    run_step("main", main)
