"""The parameters of every step. MLproject and docs/steps.md say the same; tests hold the three together."""

import os
import warnings
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, create_model, model_validator

from recsys.data.preparation import Preparation
from recsys.export.settings import Manifests
from recsys.models.base.capabilities import family_names
from recsys.serving.settings import Limits
from recsys.settings import OptionalFloat, OptionalInt, OptionalSeconds, Seconds, Settings
from recsys.training.launch.settings import Processes, check_processes
from steps.support.integrity_parameters import LineageParameters, RebuildParameters, VerifyParameters
from steps.support.parameter_groups import AUTO, STORE, Preparing, Promoting, Recording, Registering, Step, Trying
from steps.support.pipeline_settings import PipelineSettings
from steps.support.retraining_parameters import RetrainParameters
from steps.support.trial_parameters import JudgeParameters, TrialParameters

STORAGE = "RECSYS_STUDY_STORAGE"
"""The environment variable that holds the URL of the database of studies."""


def _check_families(names: str) -> str:
    if names == AUTO:
        return names
    families = [name.strip() for name in names.split(",")]
    if len(set(families)) < len(families) or not set(families) <= set(family_names()):
        raise ValueError(f"expected names out of {', '.join(family_names())}, each once, between commas")
    return ",".join(families)


class PrepareParameters(Recording, Preparing):
    """Of `prepare`."""


class _Training(Recording, Registering, Preparing):
    family: str = Field("bayesian_mf", description="model family, a file or folder in src/recsys/models")
    refit: bool = Field(True, description="after choosing on validation, learn from those rows too")
    lists: bool = Field(True, description="learn what lists are made from, too; false: the version only scores")
    forward: bool = Field(
        True, description="where ratings have timestamps, also learn from the older ones and measure on the newest"
    )


class TrainParameters(Processes, _Training):
    """Of `train`; the family's own come beside them."""

    feature_store: str = Field(
        "", description="folder of a feature store (see materialize) that random_forest learns from; empty: the dataset"
    )
    params: str = Field("", description="the family's parameters as JSON or a JSON file; those given singly win")
    from_run: str = Field("", description="run whose best_params.json to train with; parameters given singly win")
    warm_start: Annotated[int, Field(ge=1)] | Literal["none", "champion"] = Field(
        "none",
        description="version of the same family to go on from, with its choices: a number, champion, or none",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_processes(self, self.family)
        if self.warm_start != "none" and (self.together or self.feature_store):
            raise ValueError("parameter 'warm_start': none with several processes, resume or feature_store")
        return self


class Tuning(_Training):
    """Of `tune`, less `register`."""

    trials: int = Field(20, ge=0, description="trials to complete or prune; 0: as many as timeout allows")
    timeout: OptionalFloat = Field(None, gt=0, description="seconds after which no further trial starts, or none")
    workers: int = Field(1, ge=1, le=256, description="processes on this machine")
    metric: Literal["auc", "auc_per_user", "accuracy", "f1_score", "log_loss", "rmse", "mae"] = Field(
        "auc", description="validation metric to optimise"
    )
    direction: Literal["auto", "maximize", "minimize"] = Field("auto", description="auto: as the metric is better")
    space: str = Field("", description='ranges in place of the family\'s, as JSON: {"embedding_size": [8, 64]}')
    sampler: Literal["tpe", "random"] = Field("tpe", description="how settings are drawn: Optuna's TPE, or at random")
    study: str = Field(
        "auto", min_length=1, max_length=200, description="name of the Optuna study; auto: from family and dataset"
    )
    storage: str = Field(
        "auto",
        min_length=1,
        description="database of the studies, a URL without a password; auto: RECSYS_STUDY_STORAGE, or else studies.db",
    )
    heartbeat: int = Field(
        10, ge=1, description="seconds between a worker's heartbeats; six missed, and its trial is tried again"
    )

    @property
    def registers(self) -> bool:
        """The parameter `register`."""
        return bool(self.__dict__["register"])

    @model_validator(mode="after")
    def _check(self) -> Self:
        from recsys.tuning import database_url, search_space

        if self.trials == 0 and self.timeout is None:
            raise ValueError(
                "parameter 'trials': at least 1, or a timeout that ends the search, got 0 and timeout=none"
            )
        if self.storage != "auto":
            database_url.check_url(self.storage)
            if database_url.has_password(self.storage):
                raise ValueError(_password_refused(database_url.masked(self.storage)))
        if self.family in family_names():
            search_space.read_ranges(self.space, self.family)
        return self


def _password_refused(shown: str) -> str:
    launched = os.environ.get("MLFLOW_RUN_ID")  # set by `mlflow run`, which logs the parameters before it starts a step
    logged = f"; mlflow run has logged the password on run {launched}: change it at the database" if launched else ""
    return (
        f"parameter 'storage': a password on a command line can be read by every user of the machine, got {shown!r}; "
        f"pass the URL in the environment variable {STORAGE} instead{logged}"
    )


def _tuning() -> type[Tuning]:
    field = Field(True, description="train the best settings on all rows that are not test, and register the version")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # every class has a method `register`, by its metaclass
        return create_model("TuneParameters", __base__=Tuning, register=(bool, field))


TuneParameters: type[Tuning] = _tuning()
"""Of `tune`."""


class _Evaluating(Recording, Registering):
    version: OptionalInt = Field(None, ge=1, description="version to score; none: the newest")


_AS_TRAINED: dict[str, Any] = {
    name: (str, Field("", description=f"{field.description}; empty: as the version was trained"))
    for name, field in Preparation.model_fields.items()
}
EvaluateParameters: type[_Evaluating] = create_model("EvaluateParameters", __base__=_Evaluating, **_AS_TRAINED)
"""Of `evaluate`."""


class PromoteParameters(Trying):
    """Of `promote`."""

    dataset: str = Field(
        "newest",
        min_length=1,
        description="digest of the dataset whose test set decides; newest: of those that the versions learnt from",
    )
    version: OptionalInt = Field(
        None, ge=1, description="only version that may replace the champion, even one rolled back; none: any"
    )
    dry_run: bool = Field(False, description="decide and say so, and move nothing")
    repair: bool = Field(False, description="only finish what an interrupted promotion left half done; decide nothing")
    require_promotion: bool = Field(False, description="exit with status 3 where no version goes to Production")


class RollbackParameters(Recording, Registering):
    """Of `rollback`."""

    version: OptionalInt = Field(None, ge=1, description="version to put back; none: the one before the champion")


class HistoryParameters(Registering):
    """Of `history`."""

    every: bool = Field(False, description="also the decisions that changed nothing")


class MainParameters(Promoting, Preparing):
    """Of `main`."""

    families: Annotated[str, AfterValidator(_check_families)] = Field(
        AUTO,
        description="families to train, by commas; auto: matrix_factorization,random_forest,bayesian_mf for ratings, "
        "else ease, or neighbourhood for a catalogue that is too large for it",
    )


class PipelineParameters(PipelineSettings, MainParameters):
    """Of `pipeline`."""


_DATABASE = Field(
    "",
    description="team's MySQL that keeps the feedback of several servers, mysql+pymysql://… without a password; empty: "
    "RECSYS_FEEDBACK_DATABASE, or else the file in store alone",
)


class ServeParameters(Registering, Limits):
    """Of `serve`."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; any but this machine's needs keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    workers: int = Field(2, ge=1, le=256, description="processes that answer")
    poll: float = Field(5.0, gt=0, description="seconds between two looks at who is champion")
    judge: OptionalSeconds = Field(
        "10s",  # type: ignore[assignment]
        description="how often a trial is judged, such as 10s; none: by the entry point judge alone",
    )
    keys: str = Field(
        "",
        description="file with lines such as `read KEY` and `feedback KEY`; empty: RECSYS_READ_KEYS and "
        "RECSYS_FEEDBACK_KEYS, by commas",
    )
    database: str = _DATABASE
    store: str = STORE
    items: str = Field(
        "auto",
        description="table with columns item_id and title, text or Parquet; none: ids only; auto: MovieLens's titles "
        "where the version learnt from it",
    )
    feature_store: str = Field(
        "",
        description="folder of a feature store: the scores of a random_forest that learnt from one are computed from "
        "its newest values; empty: from the version's own",
    )
    rank: int = Field(32, ge=1, le=1024, description="factors per user and item in the served form")
    max_loss: float = Field(
        0.02, gt=0, description="most that the served form may change the probability of a like, root mean square"
    )


class RecommendParameters(Recording, Registering):
    """Of `recommend`."""

    version: OptionalInt = Field(None, ge=1, description="version that lists; none: the champion")
    n: int = Field(10, ge=1, description="items a list, fewer only where fewer are left")
    users: str = Field(
        "all", min_length=1, description="all: those learnt from; or a file of ids: Parquet, CSV, or one a line"
    )
    output: str = Field("lists.parquet", min_length=1, description="file to write, .parquet or .csv")
    candidates: str = Field("", description="file of the items that alone may be listed; empty: all")
    exclude: str = Field("", description="file of items that are never listed")
    exclude_seen: bool = Field(True, description="leave out what the user rated")
    diversity: float = Field(
        0.0, ge=0, le=1, description="0: by score alone; 1: by how different the items of a list are"
    )
    unknown: Literal["ignore", "refuse"] = Field(
        "ignore", description="candidates and exclusions that the version does not know are ignored, or refused"
    )


class MaterializeParameters(Recording, Registering):
    """Of `materialize`."""

    dataset: str = Field(
        "newest", min_length=1, description="digest of the dataset whose features; newest: that of the newest version"
    )
    feature_store: str = Field("feature_store", min_length=1, description="folder of the feature store")


class ReportParameters(Recording, Registering):
    """Of `report`."""

    version: OptionalInt = Field(None, ge=1, description="version to report on; none: the one of the newest decision")
    run: str = Field("", description="run of main, or of promote, whose decision is reported; empty: the newest")
    output: str = Field("report.html", min_length=1, description="file to write")
    items: str = Field(
        AUTO,
        description="table with columns item_id and title, text or Parquet; none: ids only; auto: MovieLens's titles "
        "where the version learnt from it",
    )


class ExportParameters(Manifests, Recording, Registering):
    """Of `export`."""

    version: OptionalInt = Field(None, ge=1, description="version to export; none: the champion")
    format: Literal["onnx", "kserve", "torchserve", "mlserver"] = Field(
        "onnx", description="what to write: onnx (graphs), kserve (manifests), torchserve (a .mar), mlserver (settings)"
    )
    lists: bool = Field(True, description="onnx: write a graph of lists too, beside that of scores")
    output: str = Field("deployment", min_length=1, description="folder to write to, for all formats but onnx")


class MonitorParameters(Recording, Registering):
    """Of `monitor`."""

    store: str = STORE
    window: Seconds = Field("1d", description="how long a time is judged, such as 1h, 1d or 7d")  # type: ignore[assignment]
    until: str = Field("now", min_length=1, description="end of that time: now, or as 2026-11-29T12:00")
    every: OptionalSeconds = Field(None, description="judge again and again, so often, such as 10m; none: once")
    within: Seconds = Field(  # type: ignore[assignment]
        "7d", description="feedback that names no request answers lists of at most so long ago"
    )
    like_threshold: OptionalFloat = Field(
        None, description="a rating of at least this is a like; none: as the champion learnt"
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="most probable that any look at an unchanged version gives a false alarm"
    )
    page: bool = Field(True, description="also a page by Evidently, where it is installed")
    export: str = Field("", description="folder to write record and feedback of the window to as Parquet; empty: none")


class ForgetParameters(Registering):
    """Of `forget`."""

    user: str = Field("", description="id of the person to remove from feedback and record")
    database: str = _DATABASE
    store: str = STORE
    dry_run: bool = Field(False, description="say what there is of the person, and remove nothing")


class DoctorParameters(Step):
    """Of `doctor`."""


StepName = Literal[
    "prepare",
    "train",
    "tune",
    "evaluate",
    "promote",
    "rollback",
    "history",
    "verify",
    "rebuild",
    "lineage",
    "recommend",
    "report",
    "serve",
    "export",
    "materialize",
    "monitor",
    "retrain",
    "trial",
    "judge",
    "forget",
    "main",
    "pipeline",
    "doctor",
]
STEPS: dict[StepName, type[Settings]] = {
    "main": MainParameters,
    "prepare": PrepareParameters,
    "train": TrainParameters,
    "tune": TuneParameters,
    "evaluate": EvaluateParameters,
    "promote": PromoteParameters,
    "rollback": RollbackParameters,
    "history": HistoryParameters,
    "verify": VerifyParameters,
    "rebuild": RebuildParameters,
    "lineage": LineageParameters,
    "recommend": RecommendParameters,
    "report": ReportParameters,
    "serve": ServeParameters,
    "export": ExportParameters,
    "materialize": MaterializeParameters,
    "monitor": MonitorParameters,
    "retrain": RetrainParameters,
    "trial": TrialParameters,
    "judge": JudgeParameters,
    "forget": ForgetParameters,
    "pipeline": PipelineParameters,
    "doctor": DoctorParameters,
}
