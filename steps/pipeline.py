"""Pipeline: what main does, as a pipeline of Kubeflow: compiled, run on this machine, or submitted."""

import json
import os
import tempfile
from pathlib import Path

from recsys.errors import InputError
from steps import PROJECT
from steps.main import FOR_RATINGS
from steps.support import components
from steps.support.entrypoint import given_path, run_step
from steps.support.parameter_groups import AUTO
from steps.support.parameters import MainParameters, PipelineParameters
from steps.support.runs import open_run

_INSTALL = "pip install -r pipelines/requirements.txt"
_TOKEN = "RECSYS_KUBEFLOW_TOKEN"
_CONTEXT, _PARENT = "MLFLOW_RUN_CONTEXT", "mlflow.parentRunId"  # MLflow's own
_COMPILED = "kubeflow-pipeline.yaml"


def pipeline(parameters: PipelineParameters) -> None:
    """Make the pipeline of the families asked for, and do with it what `where` says.

    Raises:
        InputError: if kfp is not installed, a component fails, or the API does not answer.
    """
    try:
        from pipelines import execution, kubeflow
    except ModuleNotFoundError as error:
        raise InputError(f"the pipeline needs {error.name}, which is not installed; {_INSTALL}") from None

    settings = parameters.model_copy(update={"tracking_uri": _tracking_uri(parameters)})
    families = _families(parameters)
    here = parameters.where == "local"
    made = kubeflow.build(settings, MainParameters, families, cluster=not here)
    if parameters.where == "compile":
        path = given_path(parameters.folder, parameters.output, "output")
        kubeflow.write(made, path)
        print(f"wrote {path}: prepare, train {', '.join(families)}, evaluate and promote")
        return
    arguments = kubeflow.arguments(parameters, MainParameters)
    with open_run("pipeline") as run, tempfile.TemporaryDirectory() as scratch:
        run.log_parameters(parameters)
        compiled = Path(scratch, _COMPILED)
        kubeflow.write(made, compiled)
        run.log_file(compiled)
        if here:
            os.environ[_CONTEXT] = json.dumps({_PARENT: run.run_id})
            os.environ[components.HERE] = str(os.getpid())
            before = [path for path in (os.environ.get("PYTHONPATH"),) if path]
            os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT), str(PROJECT / "src"), *before])
            execution.run_here(made, {**arguments, "folder": str(Path(parameters.folder).absolute())}, Path(scratch))
            return
        identity = execution.submit(
            compiled,
            {**arguments, "folder": "."},
            where=parameters.where,
            namespace=parameters.namespace,
            experiment=parameters.model_name if parameters.experiment == AUTO else parameters.experiment,
            token=os.environ.get(_TOKEN, ""),
        )
        run.set_tags({"kubeflow_run": identity})
        run.describe(f"submitted to {parameters.where} as run {identity}")
        print(f"submitted as run {identity}; Kubeflow shows it at {parameters.where}/#/runs/details/{identity}")


def _families(parameters: PipelineParameters) -> list[str]:
    """Those named; the dataset, by which main would choose, is not there yet when the pipeline is drawn."""
    chosen = parameters.families
    if chosen == AUTO:
        chosen = "ease" if parameters.feedback == "implicit" else FOR_RATINGS
    return chosen.split(",")


def _tracking_uri(parameters: PipelineParameters) -> str:
    """The MLflow that components in a cluster speak to; raises InputError where a file of this machine is all."""
    uri = parameters.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if parameters.where in ("local", "compile") or uri.startswith(("http://", "https://")):
        return uri if uri.startswith(("http://", "https://")) else ""
    raise InputError(
        "parameter 'tracking_uri': components in a cluster need an MLflow server that they can reach, and "
        "MLFLOW_TRACKING_URI names none; pass -P tracking_uri=http://mlflow.example:5000"
    )


if __name__ == "__main__":
    run_step("pipeline", pipeline)
