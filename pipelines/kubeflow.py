"""The pipeline in the words of Kubeflow Pipelines: each component calls a step of ours, in our image.

A component's body is sent to the container as text; it runs there as a program of its own, and imports the steps there.
"""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from google.protobuf import json_format
from kfp import compiler, dsl, kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2

from recsys.errors import InputError
from recsys.settings import Settings, to_text

NAME = "recsys"
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
DATA = "/data"  # where a volume claim is mounted
RUN = "RECSYS_PIPELINE_RUN"  # environment variable of a component: the run of Kubeflow that it belongs to

component = dsl.component(base_image="recsys-pipeline", install_kfp_package=False)


@component
def fingerprint(ratings: str, folder: str) -> str:
    """The digest of the bytes of the ratings: what the caches of all further components go by."""
    from steps.support import components

    return components.fingerprint(ratings, folder)


@component
def prepare(
    content: str,
    dataset: dsl.Output[dsl.Dataset],
    ratings: str = "movielens-100k",
    user_column: str = "user_id",
    item_column: str = "item_id",
    rating_column: str = "rating",
    timestamp_column: str = "timestamp",
    feedback: str = "auto",
    weight: str = "none",
    separator: str = "auto",
    encoding: str = "auto",
    decimal: str = "auto",
    min_rating: str = "positive",
    split: str = "hash",
    test_size: float = 0.2,
    validation_size: float = 0.1,
    like_threshold: float = 4.0,
    seed: int = 42,
    memory: str = "auto",
    on_change: str = "warn",
    folder: str = ".",
    experiment: str = "auto",
) -> NamedTuple("Prepared", digest=str, dataset_size=int, feature_count=int):
    """A ratings file in, a split dataset with features out."""
    from steps.support import components

    given = {name: value for name, value in locals().items() if name not in ("content", "dataset", "components")}
    made = components.prepare(given, dataset.path)
    dataset.metadata.update(made)
    return made["digest"], made["dataset_size"], made["feature_count"]


@component
def train(
    digest: str,
    dataset: dsl.Input[dsl.Dataset],
    family: str = "bayesian_mf",
    memory: str = "auto",
    model_name: str = "recsys",
    experiment: str = "auto",
) -> NamedTuple("Trained", version=int):
    """A dataset and a family in, a registered version out."""
    from steps.support import components

    given = {"family": family, "memory": memory, "model_name": model_name, "experiment": experiment}
    return (components.train(dataset.path, given),)


@component
def evaluate(
    version: int,
    dataset: dsl.Input[dsl.Dataset],
    measures: dsl.Output[dsl.Metrics],
    model_name: str = "recsys",
    experiment: str = "auto",
) -> NamedTuple("Measured", rmse=float, mae=float, auc=float, five_point_rmse=float, version=int):
    """A version's measures on the test rows; one that is undefined is as bad as it can be, never NaN."""
    from steps.support import components

    given = {"version": version, "model_name": model_name, "experiment": experiment}
    found = components.evaluate(dataset.path, given)
    for name, value in found.recorded.items():
        measures.log_metric(name, value)
    return found.rmse, found.mae, found.auc, found.five_point_rmse, version


@component
def compare(rmse: str, version: str) -> NamedTuple("Best", rmse=float, version=int):
    """The smallest of the RMSEs between commas, and whose it is."""
    best = min(zip(map(float, rmse.split(",")), map(float, version.split(",")), strict=True))
    return best[0], int(best[1])


@component
def promote(
    dataset: dsl.Input[dsl.Dataset],
    digest: str,
    metric: str = "auc",
    min_gain: float = 0.0,
    confidence: float = 0.0,
    max_rmse: float = 1.0,
    max_auc_per_user_drop: float = 0.02,
    max_forward_drop: float = 0.01,
    beat_bias: bool = True,
    beat_popularity: bool = True,
    max_ndcg_drop: str = "none",
    trial: str = "none",
    model_name: str = "recsys",
    experiment: str = "auto",
) -> NamedTuple("Decided", version=int, promoted=bool, reason=str):
    """All versions of the model compared on the test rows, the best moved to Production, or put on trial."""
    from steps.support import components

    given = {name: value for name, value in locals().items() if name not in ("dataset", "digest", "components")}
    return components.promote(dataset.path, given | {"dataset": digest})


@component
def deploy(
    version: int,
    settings: dict,
    manifests: dsl.Output[dsl.Artifact],
    model_name: str = "recsys",
    experiment: str = "auto",
):
    """The manifests by which KServe serves the champion, applied where that is asked for."""
    from steps.support import components

    given = {"version": version, "model_name": model_name, "experiment": experiment}
    components.deploy(given, settings, manifests.path)


@component
def keep(rmse: float, max_rmse: float):
    """Say why nothing is promoted."""
    print(
        f"nobody is promoted: the smallest test RMSE {rmse:.4g} (five-point scale) is not below max_rmse {max_rmse:g}"
    )


@component
def tell(status: dsl.PipelineTaskFinalStatus, model_name: str = "recsys", experiment: str = "auto"):
    """Record how the pipeline ended, in a run of MLflow."""
    from steps.support import components

    given = {"model_name": model_name, "experiment": experiment}
    components.tell(status.pipeline_job_resource_name, status.state, status.error_message, given)


def build(settings: Any, inputs: type[Settings], families: list[str], *, cluster: bool) -> Any:
    """The pipeline of these families.

    Args:
        settings: `PipelineSettings`: image, requests and the like.
        inputs: the parameters of `main`, each an input of the pipeline by its name, less `families`: a training for
            each is drawn when the pipeline is made.
        cluster: False for a run on this machine, which has no exit handler, secrets or volumes.
    """
    names = [name for name in inputs.model_fields if name != "families"]

    def pipeline(*channels: Any) -> None:
        given = dict(zip(names, channels, strict=True))
        if not cluster:
            _steps(given, settings, families, cluster)
            return
        called = tell(model_name=given["model_name"], experiment=given["experiment"])
        told = _furnish(called, settings, cluster)
        with dsl.ExitHandler(told.set_caching_options(False), name="all steps"):
            _steps(given, settings, families, cluster)

    described = [_input(name, inputs.model_fields[name].get_default()) for name in names]
    pipeline.__signature__ = inspect.Signature(described)  # type: ignore[attr-defined]
    title = f"prepare, train {', '.join(families)}, evaluate, promote"
    return dsl.pipeline(name=NAME, description=title)(pipeline)


def _steps(given: dict[str, Any], settings: Any, families: list[str], cluster: bool) -> None:
    def of(called: Any) -> dict[str, Any]:
        return {name: given[name] for name in called.component_spec.inputs if name in given}

    def task(made: Any, *, cached: bool = True, gpus: int = 0, tried_again: bool = True) -> Any:
        made.set_caching_options(cached)
        return _furnish(made, settings, cluster, gpus, settings.retries if tried_again else 0)

    content = task(fingerprint(ratings=given["ratings"], folder=given["folder"]), cached=False)
    prepared = task(prepare(content=content.output, **of(prepare)))
    digest, dataset = prepared.outputs["digest"], prepared.outputs["dataset"]
    measured = []
    for family in families:
        called = train(digest=digest, dataset=dataset, family=family, **of(train))
        trained = task(called.set_display_name(f"train {family}"), gpus=settings.gpus)
        version = trained.outputs["version"]
        called = evaluate(version=version, dataset=dataset, **of(evaluate))
        measured.append(task(called.set_display_name(f"evaluate {family}")).outputs)
    best = task(
        compare(
            rmse=",".join(str(found["five_point_rmse"]) for found in measured),
            version=",".join(str(found["version"]) for found in measured),
        )
    )
    # Not dsl.Else: a value that were neither below nor above would take it.
    with dsl.If(best.outputs["rmse"] < given["max_rmse"], name="good enough"):
        called = promote(dataset=dataset, digest=digest, trial=to_text(settings.trial), **of(promote))
        # Not tried again: a decision stands, and a second one would be recorded beside it.
        promoted = task(called, cached=False, tried_again=False)
        if settings.deploy != "none":
            with dsl.If(promoted.outputs["version"] > 0, name="a champion"):
                version = promoted.outputs["version"]
                called = deploy(version=version, settings=_deployment(settings, cluster), **of(deploy))
                task(called, cached=False)
    with dsl.If(best.outputs["rmse"] >= given["max_rmse"], name="not good enough"):
        task(keep(rmse=best.outputs["rmse"], max_rmse=given["max_rmse"]), cached=False)


def _deployment(settings: Any, cluster: bool) -> dict[str, Any]:
    """What the manifests say, and whether they are applied: never from this machine, which may know another cluster."""
    given = {"serve_image": settings.serve_image, "train_image": settings.image, "share": to_text(settings.share)}
    given |= {name: getattr(settings, name) for name in ("namespace", "tracking_uri", "secret", "claim")}
    said = {name: value for name, value in given.items() if value}
    return {"export": said, "apply": cluster and settings.deploy == "apply"}


def _furnish(task: Any, settings: Any, cluster: bool, gpus: int = 0, retries: int = 0) -> Any:
    """Image, requests and environment of a component; here it takes what this machine has."""
    task.set_container_image(settings.image)
    task.set_cpu_request(settings.cpu)
    task.set_memory_request(settings.pod_memory).set_memory_limit(settings.pod_memory)
    if gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
    if retries:
        task.set_retry(num_retries=retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    if cluster:
        _surround(task, settings)
    return task


def _surround(task: Any, settings: Any) -> None:
    """What the cluster gives a component: where MLflow is, how to log in there, and the volume with the ratings."""
    if settings.tracking_uri:
        task.set_env_variable("MLFLOW_TRACKING_URI", settings.tracking_uri)
    if settings.secret:
        kubernetes.use_secret_as_env(task, settings.secret, {name: name for name in LOGIN})
    if settings.claim:
        kubernetes.mount_pvc(task, pvc_name=settings.claim, mount_path=DATA)
        task.set_env_variable("RECSYS_DATA", f"{DATA}/recsys")
    kubernetes.use_field_path_as_env(task, env_name=RUN, field_path="metadata.labels['pipeline/runid']")


def arguments(parameters: Settings, inputs: type[Settings]) -> dict[str, Any]:
    """The values of a pipeline's inputs, each of its input's type: Kubeflow refuses a number for a text."""
    values = {name: getattr(parameters, name) for name in inputs.model_fields if name != "families"}
    kinds = {name: _kind(inputs.model_fields[name].get_default()) for name in values}
    return {name: to_text(value) if kinds[name] is str else value for name, value in values.items()}


def _kind(default: Any) -> type:
    return type(default) if isinstance(default, bool | int | float) else str


def _input(name: str, default: Any) -> inspect.Parameter:
    """An input of the pipeline, of the type that its default has; what may be a number or a word is text."""
    kind = _kind(default)
    value = default if kind is not str else to_text(default)
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=kind)


def write(pipeline: Any, path: Path) -> None:
    """Compile a pipeline into a file, once it is seen to be what Kubeflow reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.yaml")
    try:
        compiler.Compiler().compile(pipeline, str(partial))
        check(partial.read_text(encoding="utf-8"))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check(text: str) -> None:
    """Read a compiled pipeline by Kubeflow's protocol buffer; raises InputError for a field that it does not know."""
    documents = list(yaml.safe_load_all(text))
    kinds = pipeline_spec_pb2.PipelineSpec, pipeline_spec_pb2.PlatformSpec
    for document, kind in zip(documents, kinds, strict=False):
        try:
            json_format.ParseDict(document, kind())
        except json_format.ParseError as error:
            raise InputError(f"the compiled pipeline is no {kind.DESCRIPTOR.name} of Kubeflow: {error}") from None
