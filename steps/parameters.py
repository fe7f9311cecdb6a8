"""The parameters of every step. MLproject and docs/steps.md say the same; tests hold the three together."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from recsys.dataset import Preparation
from recsys.families import family_names
from recsys.settings import OptionalFloat, OptionalInt, Settings


def _check_model_name(name: str) -> str:
    if not name.strip() or set(name) & set("/:\\'\""):  # MLflow uses / and : in model URIs
        raise ValueError("expected a name without / : \\ or quotes")
    return name


def _check_families(names: str) -> str:
    families = [name.strip() for name in names.split(",")]
    if len(set(families)) < len(families) or not set(families) <= set(family_names()):
        raise ValueError(f"expected names out of {', '.join(family_names())}, each once, between commas")
    return ",".join(families)


class _Step(Settings):
    folder: str = Field(".", description="relative paths start here; mlflow run fills in the folder you call it from")


class _Registering(_Step):
    model_name: Annotated[str, AfterValidator(_check_model_name)] = Field(
        "recsys", description="registered model that versions belong to"
    )


class PrepareParameters(_Step, Preparation):
    """Of `prepare`."""


class TrainParameters(_Registering, Preparation):
    """Of `train`; the family's own come beside them."""

    family: str = Field("bayesian_mf", description="model family, a file in src/recsys/families")
    refit: bool = Field(True, description="after choosing on validation, learn from those rows too")


class TuneParameters(TrainParameters):
    """Of `tune`."""

    trials: int = Field(20, ge=1, description="configurations to try")
    timeout: OptionalFloat = Field(None, gt=0, description="seconds after which no further trial starts, or none")
    study: str = Field("auto", min_length=1, description="name of the Optuna study; auto: from family and dataset")
    storage: str = Field(
        "auto", min_length=1, description="where studies are kept: an SQLAlchemy URL; auto: studies.db"
    )


class _Evaluating(_Registering):
    version: OptionalInt = Field(None, ge=1, description="version to score; none: the newest")


_AS_TRAINED: dict[str, Any] = {
    name: (str, Field("", description=f"{field.description}; empty: as the version was trained"))
    for name, field in Preparation.model_fields.items()
}
EvaluateParameters: type[_Evaluating] = create_model("EvaluateParameters", __base__=_Evaluating, **_AS_TRAINED)
"""Of `evaluate`."""


class _Promoting(_Registering):
    max_rmse: float = Field(
        1.0,
        gt=0,
        description="guard: highest test RMSE allowed, on a five-point scale; scaled with the range",
    )


class PromoteParameters(_Promoting):
    """Of `promote`."""

    dataset: str = Field("newest", min_length=1, description="digest of the dataset whose test set decides, or newest")


class MainParameters(_Promoting, Preparation):
    """Of `main`."""

    families: Annotated[str, AfterValidator(_check_families)] = Field(
        "matrix_factorization,random_forest,bayesian_mf", description="families to train, by commas"
    )


StepName = Literal["prepare", "train", "tune", "evaluate", "promote", "main"]
STEPS: dict[StepName, type[Settings]] = {
    "main": MainParameters,
    "prepare": PrepareParameters,
    "train": TrainParameters,
    "tune": TuneParameters,
    "evaluate": EvaluateParameters,
    "promote": PromoteParameters,
}
