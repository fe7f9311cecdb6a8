"""The pipeline that Kubeflow reads: its components are the steps, its inputs the parameters of `main`."""

import copy
import functools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from pipelines import execution, kubeflow
from recsys.errors import InputError
from recsys.settings import Settings, parse_settings, to_text
from steps.pipeline import pipeline
from steps.support import components
from steps.support.entrypoint import parse
from steps.support.parameters import STEPS, MainParameters, PipelineParameters

PROJECT = Path(__file__).resolve().parents[2]
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
OWN = {
    "prepare": {"content"},
    "train": {"digest", "dataset"},
    "evaluate": {"dataset"},
    "promote": {"dataset", "digest"},
    "deploy": {"settings"},
}
"""What a component has beside the parameters of its step: what the components before it made."""
STEP_OF = {"deploy": "export"}
WHOLE = ("prepare", "promote")  # those that take every parameter of `main` that their step has


FURNISHED: dict[str, Any] = {
    "image": "registry.example/recsys:1",
    "cpu": "500m",
    "pod_memory": "2Gi",
    "gpus": 1,
    "retries": 4,
    "secret": "login",
    "claim": "ratings",
    "tracking_uri": "http://mlflow:5000",
}
"""Settings of which each changes a part of its own, so that one compilation shows them all."""


def compiled(**given: object) -> dict[str, Any]:
    return documents(**given)[0]


def documents(**given: object) -> list[dict[str, Any]]:
    """What is written, compiled once for equal settings: that takes a second."""
    return copy.deepcopy(_documents(tuple(given.items())))


@functools.cache
def _documents(given: tuple[tuple[str, object], ...]) -> list[dict[str, Any]]:
    settings = PipelineParameters(where="compile", **dict(given))
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        path = Path(folder) / "pipeline.yaml"
        # kfp inspects the whole stack for every setting of a task, and that of a new thread is short.
        pipeline = thread.submit(kubeflow.build, settings, MainParameters, ["bias", "ease"], cluster=True).result()
        kubeflow.write(pipeline, path)
        return list(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))


def tasks(document: dict[str, Any]) -> dict[str, Any]:
    """All tasks of all groups, by name."""
    groups = [document["root"], *document["components"].values()]
    return {name: task for group in groups for name, task in group.get("dag", {}).get("tasks", {}).items()}


def containers(document: dict[str, Any]) -> dict[str, Any]:
    executors = document["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}


def test_the_inputs_are_the_parameters_of_main_with_their_defaults():
    inputs = compiled()["root"]["inputDefinitions"]["parameters"]
    declared = {name: one["default"] for name, one in MLPROJECT["main"]["parameters"].items() if name != "families"}
    assert inputs.keys() == declared.keys()
    kinds = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "STRING": str}
    for name, default in declared.items():
        kind = kinds[inputs[name]["parameterType"]]
        assert to_text(kind(inputs[name]["defaultValue"])) == default
    assert (
        parse_settings(MainParameters, {name: one["defaultValue"] for name, one in inputs.items()}) == MainParameters()
    )


def test_what_may_be_a_number_or_a_word_is_given_as_text():
    parameters = PipelineParameters(memory=4.5, min_rating=2, max_ndcg_drop=0.01, seed=7, beat_bias=False)
    given = kubeflow.arguments(parameters, MainParameters)
    assert [given[name] for name in ("memory", "min_rating", "max_ndcg_drop")] == ["4.5", "2.0", "0.01"]
    assert (given["seed"], given["beat_bias"], given["test_size"]) == (7, False, 0.2)
    assert kubeflow.arguments(PipelineParameters(), MainParameters)["max_ndcg_drop"] == "none"


@pytest.mark.parametrize("name", OWN)
def test_a_component_has_the_parameters_of_its_step_with_their_defaults(name):
    step: type[Settings] = STEPS[STEP_OF.get(name, name)]
    inputs = {key: one for key, one in getattr(kubeflow, name).component_spec.inputs.items() if key not in OWN[name]}
    assert inputs.keys() <= step.model_fields.keys()
    assert {key: to_text(one.default) for key, one in inputs.items() if one.default is not None} == {
        key: to_text(step.model_fields[key].get_default()) for key, one in inputs.items() if one.default is not None
    }
    if name in WHOLE:
        shared = (step.model_fields.keys() & MainParameters.model_fields.keys()) - (
            {"folder"} if name == "promote" else set()
        )
        assert inputs.keys() - {"trial"} == shared


def test_families_are_trained_beside_each_other():
    found = tasks(compiled())
    trainings = [task for name, task in found.items() if task.get("taskInfo", {}).get("name", "").startswith("train ")]
    assert [task["taskInfo"]["name"] for task in trainings] == ["train bias", "train ease"]
    assert all(task["dependentTasks"] == ["prepare"] for task in trainings)


def test_what_decides_is_never_cached_and_the_rest_goes_by_the_digest():
    found = tasks(compiled())
    cached = {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {"prepare", "train", "train-2", "evaluate", "compare"} <= cached
    assert not {"fingerprint", "promote", "deploy", "tell"} & cached
    content = found["prepare"]["inputs"]["parameters"]["content"]["taskOutputParameter"]
    assert content["producerTask"] == "fingerprint"
    assert found["train"]["inputs"]["parameters"]["digest"]["taskOutputParameter"]["outputParameterKey"] == "digest"


def test_components_run_in_our_image_with_what_they_ask_for():
    found = containers(compiled(**FURNISHED))
    assert {container["image"] for container in found.values()} == {"registry.example/recsys:1"}
    assert {container["resources"]["resourceMemoryLimit"] for container in found.values()} == {"2Gi"}
    assert {container["resources"]["resourceCpuRequest"] for container in found.values()} == {"500m"}
    on_gpu = {name for name, container in found.items() if "accelerator" in container["resources"]}
    assert on_gpu == {"train", "train-2"}
    assert not any("pip install" in part for container in found.values() for part in container["command"])


def test_a_component_is_tried_again_but_a_decision_is_not():
    retried = {
        name: task["retryPolicy"]["maxRetryCount"]
        for name, task in tasks(compiled(**FURNISHED)).items()
        if "retryPolicy" in task
    }
    assert set(retried.values()) == {4}
    assert {"prepare", "train", "evaluate"} <= retried.keys()
    assert not {"promote", "tell"} & retried.keys()


def test_the_exit_handler_runs_whatever_happens_and_is_told_how_it_ended():
    told = compiled()["root"]["dag"]["tasks"]["tell"]
    assert told["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "taskFinalStatus" in told["inputs"]["parameters"]["status"]


def test_login_ratings_and_the_server_reach_every_component():
    spec, platform = documents(**FURNISHED)
    for container in containers(spec).values():
        assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container["env"]
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert executor["secretAsEnv"][0]["secretName"] == "login"
        assert executor["pvcMount"][0]["mountPath"] == "/data"


@pytest.mark.parametrize(("how", "applied"), [("manifests", False), ("apply", True), ("none", None)])
def test_a_promotion_is_deployed_as_asked(how, applied):
    found = tasks(compiled(deploy=how, namespace="team-a", share=0.1, serve_image="images.example/serve:2"))
    if applied is None:
        assert "deploy" not in found
        return
    given = found["deploy"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert given["apply"] is applied
    said = {"namespace": "team-a", "share": "0.1", "serve_image": "images.example/serve:2"}
    assert given["export"].items() >= said.items()
    parse("export", [f"--{name}={value}" for name, value in given["export"].items()])


def test_outputs_have_types():
    found = {
        name: {key: one["parameterType"] for key, one in component["outputDefinitions"]["parameters"].items()}
        for name, component in compiled()["components"].items()
        if "parameters" in component.get("outputDefinitions", {})
    }
    assert found["comp-prepare"] == {
        "digest": "STRING",
        "dataset_size": "NUMBER_INTEGER",
        "feature_count": "NUMBER_INTEGER",
    }
    assert (
        found["comp-evaluate"].items()
        >= {"rmse": "NUMBER_DOUBLE", "mae": "NUMBER_DOUBLE", "auc": "NUMBER_DOUBLE"}.items()
    )
    assert found["comp-promote"] == {"version": "NUMBER_INTEGER", "promoted": "BOOLEAN", "reason": "STRING"}


def test_a_field_that_kubeflow_does_not_know_is_refused():
    document = compiled()
    kubeflow.check(yaml.safe_dump(document))
    tasks(document)["train"]["cachingOption"] = {}
    with pytest.raises(InputError, match="cachingOption"):
        kubeflow.check(yaml.safe_dump(document))


class Values:
    """kfp's store: a task's outputs, and the inputs."""

    def __init__(self, rmse: float) -> None:
        self._outputs = {("compare-all", "rmse"): rmse}
        self._inputs = {"max_rmse": 1.0, "pipelinechannel--limit": 2.0}

    def get_parent_input(self, key):
        return self._found(self._inputs, key)

    def get_task_output(self, task, key):
        return self._found(self._outputs, (task, key))

    def _found(self, values, key):
        if key not in values:
            raise ValueError(key)
        return values[key]


RMSE, MOST = (f"inputs.parameter_values['pipelinechannel--{name}']" for name in ("compare-all-rmse", "max_rmse"))
GOOD = f"{RMSE} < {MOST}"
BAD = GOOD.replace("<", ">=")


@pytest.mark.parametrize(
    ("rmse", "good", "bad"),
    [(0.9, True, False), (1.0, False, True), (components.UNDEFINED, False, True), (math.nan, False, False)],
)
def test_a_condition_is_evaluated_and_nan_promotes_nobody(rmse, good, bad):
    assert execution.holds(GOOD, Values(rmse)) is good
    assert execution.holds(BAD, Values(rmse)) is bad


def test_conditions_are_evaluated_in_kubeflow_s_language():
    assert execution.holds(
        f"!({GOOD}) && true || int(inputs.parameter_values['pipelinechannel--limit']) != 2", Values(3.0)
    )
    with pytest.raises(InputError, match="which no component has put out"):
        execution.holds("inputs.parameter_values['pipelinechannel--other-rmse'] < 1", Values(1.0))


def test_an_undefined_measure_is_as_bad_as_it_can_be():
    found = components.measures({"rmse": math.nan, "auc": math.inf, "mae": 0.7}, (1, 5), implicit=False)
    assert found == (components.UNDEFINED, 0.7, 0.0, components.UNDEFINED, {"mae": 0.7})
    assert components.measures({}, (1, 5), implicit=False).five_point_rmse == components.UNDEFINED


def test_the_rmse_of_the_condition_counts_as_the_guard_does():
    assert components.measures({"rmse": 18.0}, (0, 100), implicit=False).five_point_rmse == pytest.approx(0.72)
    assert components.measures({"auc": 0.9}, (1, 1), implicit=True).five_point_rmse == 0


def test_the_smallest_error_is_compared_and_its_version_named():
    best = kubeflow.compare.python_func(rmse=f"0.95,{components.UNDEFINED},0.9", version="3.0,4.0,5.0")
    assert best == (0.9, 5)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("where", "ftp://host", "expected local, compile, or the address"),
        ("namespace", "Team-A", "small letters, digits and -"),
        ("cpu", "many", "a quantity of Kubernetes"),
        ("claim", "My Data", "small letters, digits and -"),
    ],
)
def test_what_no_cluster_takes_is_refused(name, value, said):
    with pytest.raises(InputError, match=said):
        parse_settings(PipelineParameters, {name: value})


def test_a_cluster_is_not_given_a_database_file(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(InputError, match="tracking_uri"):
        pipeline(PipelineParameters(where="http://127.0.0.1:9"))


def test_without_kfp_the_command_that_installs_it_is_told(monkeypatch):
    for name in ("pipelines.kubeflow", "pipelines.execution", "kfp"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.delattr("pipelines.kubeflow")
    monkeypatch.delattr("pipelines.execution")
    with pytest.raises(InputError, match=r"which is not installed; pip install -r pipelines/requirements\.txt"):
        pipeline(PipelineParameters(where="compile"))
