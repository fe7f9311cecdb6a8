"""Where a pipeline of Kubeflow runs, and with what."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recsys.experiments.plan import Share
from recsys.export.settings import AUTO, CanaryShare, OptionalLabel, Quantity
from recsys.settings import Settings


def _check_where(where: str) -> str:
    if where not in ("local", "compile") and not re.match(r"https?://[^/\s]", where):
        raise ValueError("expected local, compile, or the address of a Kubeflow Pipelines API, https://host/pipeline")
    return where.rstrip("/")


class PipelineSettings(Settings):
    """Of `pipeline`, beside what `main` takes."""

    where: Annotated[str, AfterValidator(_check_where)] = Field(
        "local", description="local: run here; compile: only write the file; else the address of the API to submit to"
    )
    output: str = Field("kubeflow-pipeline.yaml", min_length=1, description="file that where=compile writes")
    image: str = Field("recsys-pipeline:3.17.2", min_length=1, description="image that the components run in")
    namespace: OptionalLabel = Field(
        "", description="namespace of the run, where the API serves several; empty: its own"
    )
    tracking_uri: str = Field(
        "", description="MLflow server as the cluster sees it; empty: MLFLOW_TRACKING_URI, where that is http or https"
    )
    secret: OptionalLabel = Field(
        "", description="secret of the cluster with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; empty: none"
    )
    claim: OptionalLabel = Field("", description="volume claim with the ratings, mounted as /data; empty: none")
    cpu: Quantity = Field("2", description="processors that a component asks for")
    pod_memory: Quantity = Field("8Gi", description="memory that a component asks for, and may not exceed")
    gpus: int = Field(0, ge=0, le=64, description="NVIDIA GPUs that a training asks for")
    retries: int = Field(2, ge=0, le=20, description="how often a component that failed is tried again")
    deploy: Literal["none", "manifests", "apply"] = Field(
        "manifests",
        description="after a promotion: manifests: write them for KServe; apply: give the InferenceService to the "
        "cluster, too; none",
    )
    serve_image: str = Field("recsys-serve:3.17.2", min_length=1, description="image of the server that is deployed")
    share: CanaryShare = Field(
        AUTO,
        description="share of requests that the new revision gets at first; auto: the share of the trial that runs, or "
        "else all; none: all",
    )
    trial: Share = Field(
        None, description="share of users that a trial shows the winner to, instead of Production at once; shadow; none"
    )
