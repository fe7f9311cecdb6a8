"""What the manifests of a version say of a cluster."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from recsys.settings import Settings

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGT]i?)?")
_SCHEDULE = re.compile(r"@(hourly|daily|weekly|monthly)|[\d*/,-]+( [\d*/,-]+){4}")


def _check_label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError("expected small letters, digits and - (at most 63), as Kubernetes names things")
    return name


def _check_optional_label(name: str) -> str:
    return name and _check_label(name)


def _check_quantity(quantity: str) -> str:
    if not _QUANTITY.fullmatch(quantity):
        raise ValueError("expected a quantity of Kubernetes such as 2, 500m or 8Gi")
    return quantity


def _check_schedule(schedule: str) -> str:
    if not _SCHEDULE.fullmatch(schedule):
        raise ValueError("expected five fields of cron such as 0 3 * * *, or @daily")
    return schedule


def _none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


AUTO: Literal["auto"] = "auto"
CanaryShare = Annotated[Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] | None, BeforeValidator(_none)]
Label = Annotated[str, AfterValidator(_check_label)]
OptionalLabel = Annotated[str, AfterValidator(_check_optional_label)]
Quantity = Annotated[str, AfterValidator(_check_quantity)]


class Manifests(Settings):
    """Of the formats that describe a deployment."""

    name: Label = Field("recsys", description="kserve: name of the service and of what belongs to it")
    namespace: Label = Field("recsys", description="kserve: namespace of all of it")
    serve_image: str = Field("recsys-serve:3.17.2", min_length=1, description="kserve: image of the server")
    train_image: str = Field("recsys-pipeline:3.17.2", min_length=1, description="kserve: image of trainings")
    tracking_uri: str = Field(
        "http://mlflow:5000", pattern=r"^https?://[^/\s]", description="kserve: MLflow server as the cluster sees it"
    )
    secret: OptionalLabel = Field(
        "recsys", description="kserve: secret with keys, login and addresses, as environment variables"
    )
    claim: OptionalLabel = Field("", description="kserve: volume claim with the ratings, mounted as /data; empty: none")
    share: CanaryShare = Field(
        AUTO,
        description="kserve: share of requests that a new revision gets at first; auto: the share of the trial that "
        "runs, or else all; none: all",
    )
    min_replicas: int = Field(1, ge=0, le=1000, description="kserve: fewest pods that serve; 0 needs Knative")
    max_replicas: int = Field(4, ge=1, le=1000, description="kserve: most pods that serve")
    cpu: Quantity = Field("2", description="kserve: processors that a pod asks for")
    pod_memory: Quantity = Field("4Gi", description="kserve: memory that a pod asks for, and may not exceed")
    train_family: str = Field("bayesian_mf", min_length=1, description="kserve: family of the training job")
    train_ratings: str = Field(
        "movielens-100k", min_length=1, description="kserve: ratings of the training job and of retraining"
    )
    processes: int = Field(1, ge=1, le=64, description="kserve: processes of the training job on each node")
    nodes: int = Field(1, ge=1, le=1024, description="kserve: nodes of the training job")
    gpus: int = Field(0, ge=0, le=64, description="kserve: NVIDIA GPUs that a node of the training job asks for")
    schedule: Annotated[str, AfterValidator(_check_schedule)] = Field(
        "0 3 * * *", description="kserve: when retraining is looked into, as cron writes it"
    )

    @model_validator(mode="after")
    def _check(self) -> "Manifests":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"parameter 'min_replicas': at most max_replicas={self.max_replicas}, got {self.min_replicas}"
            )
        return self
