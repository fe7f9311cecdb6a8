"""What several steps have among their parameters."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recsys.data.preparation import Preparation
from recsys.experiments.plan import Plan, Share
from recsys.settings import Settings
from registry.policy import Policy

AUTO = "auto"
DEFAULT_MODEL = "recsys"
STORE: str = Field("serving", min_length=1, description="folder of feedback, record and served forms")


def _check_model_name(name: str) -> str:
    if not name.strip() or set(name) & set("/:\\'\""):  # MLflow uses / and : in model URIs
        raise ValueError("expected a name without / : \\ or quotes")
    return name


def _check_experiment(name: str) -> str:
    if not name.strip():
        raise ValueError("expected a name")
    return name


class Step(Settings):
    """Of every step."""

    folder: str = Field(".", description="relative paths start here; mlflow run fills in the folder you call it from")


class Registering(Step):
    """Of a step that knows a registered model."""

    model_name: Annotated[str, AfterValidator(_check_model_name)] = Field(
        DEFAULT_MODEL, description="registered model that versions belong to"
    )


class Recording(Step):
    """Of a step that records runs."""

    experiment: Annotated[str, AfterValidator(_check_experiment)] = Field(
        AUTO, description="experiment that the runs belong to; auto: the one that MLflow was given, or the model's name"
    )


class Promoting(Recording, Registering, Policy):
    """Of a step that promotes."""


class Trying(Promoting, Plan):
    """Of a step that promotes, perhaps to a trial."""

    trial: Share = Field(
        None,
        description="put the winner on trial instead of in Production: the share of users that see it, such as 0.1; "
        "shadow: nobody sees it, it answers beside; none: no trial",
    )


OnChange = Literal["warn", "refuse", "ignore"]


class Preparing(Preparation):
    """Of a step that makes a dataset, or lets one be made."""

    memory: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="GB to use; ratings that need more go by way of the disk. auto: half of what is free",
    )
    on_change: OnChange = Field(
        "warn", description="a file that differs much from the one before: warn, refuse (it is not kept) or ignore"
    )
