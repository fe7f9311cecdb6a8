"""Settings of a server, as its processes are given them."""

from typing import Literal

from pydantic import Field

from recsys.serving.request_log import Kind
from recsys.settings import Settings


class Limits(Settings):
    """What a server refuses."""

    max_n: int = Field(1000, ge=1, le=100_000, description="longest list that may be asked for")
    max_batch: int = Field(10_000, ge=1, description="most rows of one request for scores, and most events of one")
    max_body: int = Field(4_000_000, ge=1000, description="bytes of the largest body")
    max_waiting: int = Field(10_000, ge=1, description="events that may wait for the disk before more are refused")
    max_lag: float = Field(0.5, gt=0, description="seconds that requests may wait before further ones are refused")
    body_seconds: float = Field(
        10.0, gt=0, description="seconds in which the head, and then the body, of a request arrives"
    )
    feedback_seconds: float = Field(10.0, gt=0, description="seconds that feedback may wait for the disk")
    log: Kind = Field(
        "none", description="requests: a line of JSON each on standard error, without ids of persons; ids: with them"
    )
    record: bool = Field(True, description="keep a record of the lists answered, beside the feedback")
    kept_lists: int = Field(
        10_000,
        ge=0,
        description="lists that each worker keeps of a version, for requests that the same list answers: about 2 kB "
        "each, 8 kB at most; 0: none",
    )
    explore: float = Field(
        0.0, ge=0, le=0.5, description="share of lists drawn by Thompson sampling; propensities are recorded"
    )
    runtime: Literal["numpy", "onnx"] = Field(
        "numpy",
        description="what computes scores of users who were learnt from: numpy, from the served form; onnx: ONNX "
        "Runtime, from the version's graph",
    )
    retention: float = Field(90.0, gt=0, description="days that the record of a list is kept")


class ServingSettings(Limits):
    """Limits, places and keys."""

    model_name: str = Field("recsys", description="name of the model in addresses such as /v2/models/recsys")
    folder: str = Field("serving", description="folder of served forms, the pointer to the current one, and feedback")
    read_keys: tuple[str, ...] = Field((), description="keys that may read; none: everybody may")
    feedback_keys: tuple[str, ...] = Field((), description="keys that may give feedback; none: who may read")
    feature_store: str = Field("", description="folder of the feature store that scores are computed from; empty: none")
    feature_database: str = Field("", description="URL of its MySQL, where its newest values are; empty: its folder")
    webhook_secret: str = Field("", description="secret by which MLflow signs its webhooks; empty: none are taken")
