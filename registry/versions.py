"""Registered versions: what they are, where they stand, and how they did on which test set."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from recsys.arrays import Floats
from recsys.errors import InputError
from recsys.evaluation import PROTOCOL
from recsys.runtime.interruption import uninterrupted
from recsys.tracking.pages import all_pages
from recsys.tracking.retry import retry_mlflow
from registry.forward import ForwardMeasures, describe_forward, read_forward
from registry.replicates import pack, stale_keys, unpack

MODEL_DESCRIPTION = (
    "Recommender: for `user_id, item_id` it answers the expected `rating` and the `like_probability`, for `user_id` "
    "alone the list of `n` items that the user most probably takes and likes. "
    "The version in Production carries the alias `champion`; every version's description says how it does."
)
PROVENANCE = "provenance"  # on a version: the digest of the statement of its files' digests
ROLLED_BACK = "rolled_back"  # on a version taken out of Production: {"to": version, "by": person, "at": time}
# By test set, and by how its rows were measured, so that figures of an earlier release, or written by one in use beside
# this, are never compared with those of this one.
_EVALUATION = f"evaluation.{PROTOCOL}."
_REPLICATES = f"replicates.{PROTOCOL}."
_SHOWN = {"auc": "AUC", "auc_per_user": "per-user AUC", "rmse": "RMSE", "mae": "MAE"}


@dataclass(frozen=True)
class Version:
    """A registered version; `model_id` is the logged model behind it, None where it is not one of ours."""

    name: str
    number: int
    stage: str
    tags: Mapping[str, str]
    source: str
    description: str
    created: float = 0.0  # seconds since 1970
    run_id: str = ""  # of its training

    @property
    def family(self) -> str | None:
        """The family that trained it; None for a version that another tool registered."""
        return self.tags.get("family")

    @property
    def rolled_back(self) -> str | None:
        """By whom and when it was taken out of Production; None if it was not, or was asked back since."""
        recorded = self.tags.get(ROLLED_BACK)
        if recorded is None:
            return None
        found = json.loads(recorded)
        return f"rolled back by {found['by']} on {found['at'][:10]}"

    @property
    def model_id(self) -> str | None:
        """The logged model behind the version."""
        return self.source.removeprefix("models:/") if self.source.startswith("models:/m-") else None

    @property
    def forward(self) -> ForwardMeasures | None:
        """How its training did on the newest of its rows; None where that was not measured."""
        return read_forward(self.tags)

    def metrics_on(self, test_digest: str) -> dict[str, float] | None:
        """The metrics recorded for a test set, None where the version was not evaluated on it as served."""
        recorded = self.tags.get(_EVALUATION + test_digest)
        return None if recorded is None else {key: float(value) for key, value in json.loads(recorded).items()}

    def replicates_on(self, test_digest: str) -> Floats | None:
        """The bootstrap replicates of its AUC on a test set, shape (replicates,), to about 1e-5."""
        return self._replicates(test_digest, "auc", 1)

    def user_replicates_on(self, test_digest: str) -> Floats | None:
        """As `replicates_on`, of its per-user AUC; None where that does not exist."""
        return self._replicates(test_digest, "auc_per_user", 2)

    def _replicates(self, test_digest: str, measure: str, position: int) -> Floats | None:
        recorded = self.tags.get(_REPLICATES + test_digest, "").split(" ")
        metrics = self.metrics_on(test_digest)
        if len(recorded) <= position or metrics is None or measure not in metrics:
            return None
        return unpack(recorded[position], metrics[measure])


@uninterrupted()
def register(run_id: str, model_id: str, name: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model, made by a run, as a new version; raises InputError as `find_model` does."""
    client = MlflowClient()
    if find_model(name) is None:
        try:
            client.create_registered_model(name, description=MODEL_DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    source = f"models:/{model_id}"

    @retry_mlflow
    def create() -> Version:
        """Once: where the answer to an earlier try was lost, its version is there."""
        for version in list_versions(name):
            if version.source == source:
                return version
        return _version(
            client.create_model_version(
                name, source, run_id, tags=dict(tags), description=describe(tags), model_id=model_id
            )
        )

    created = create()
    # The tag by which the UI leads from the logged model to its version.
    link = json.dumps([{"name": name, "version": created.number}])
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: link})
    return created


@uninterrupted()
def find_model(name: str) -> RegisteredModel | None:
    """The registered model; raises InputError if there is one whose name differs by case only.

    MySQL takes such names for one, sqlite for two.
    """
    for model in MlflowClient().search_registered_models(f"name ILIKE '{name}'"):
        if model.name == name:
            return model
        if model.name.casefold() == name.casefold():
            raise InputError(
                f"parameter 'model_name': {name!r} differs from the registered model {model.name!r} by case only; "
                f"write {model.name!r}, or choose another name"
            )
    return None


@uninterrupted()
def list_versions(name: str) -> list[Version]:
    """All versions by number; an empty list where no such model is registered."""
    found = all_pages(MlflowClient().search_model_versions, filter_string=f"name = '{name}'")
    return sorted((_version(item) for item in found), key=lambda version: version.number)


def find_or_raise_version(name: str, number: int | None = None) -> Version:
    """One version, or the newest; raises InputError that names those there are."""
    versions = list_versions(name)
    if not versions:
        raise InputError(
            f"model {name!r} has no version in {mlflow.get_registry_uri()}; run the entry point train first"
        )
    if number is None:
        return versions[-1]
    for version in versions:
        if version.number == number:
            return version
    known = ", ".join(str(version.number) for version in versions)
    raise InputError(f"parameter 'version': one of model {name!r}'s versions ({known}), got {number}")


def find_tagged(name: str, tags: Mapping[str, str]) -> Version | None:
    """The first version with all these tags, or None."""
    return next((version for version in list_versions(name) if tags.items() <= version.tags.items()), None)


@uninterrupted()
def record_metrics(
    version: Version,
    test_digest: str,
    metrics: Mapping[str, float],
    replicates: Floats | None = None,
    user_replicates: Floats | None = None,
) -> Version:
    """Remember a version's metrics on a test set, as a tag, and say them in its description.

    Args:
        replicates: bootstrap replicates of the AUC, shape (replicates,); kept for the newest few test sets.
        user_replicates: the same of the per-user AUC.
    """
    client = MlflowClient()
    number = str(version.number)
    tags = {_EVALUATION + test_digest: json.dumps(dict(metrics)), "evaluated_on": test_digest}
    stale: list[str] = []
    if "auc" in metrics:
        tags["auc"] = f"{metrics['auc']:.4f}"
    elif "auc" in version.tags:
        stale.append("auc")  # it was of another test set
    if replicates is not None and "auc" in metrics:
        kept = [datetime.now(UTC).isoformat(timespec="milliseconds"), pack(replicates, metrics["auc"])]
        if user_replicates is not None and "auc_per_user" in metrics:
            kept.append(pack(user_replicates, metrics["auc_per_user"]))
        tags[_REPLICATES + test_digest] = " ".join(kept)
        stale += stale_keys(version.tags, _REPLICATES, _REPLICATES + test_digest)
    for key in stale:
        client.delete_model_version_tag(version.name, number, key)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value)
    client.update_model_version(version.name, number, describe({**version.tags, **tags}))
    return find_or_raise_version(version.name, version.number)


@uninterrupted()
def tag(version: Version, key: str, value: str) -> None:
    """Write a tag of a version."""
    MlflowClient().set_model_version_tag(version.name, str(version.number), key, value)


def describe(tags: Mapping[str, str]) -> str:
    """A version's description for people, from its tags; its beginning is all that a list of versions shows."""
    dirty = " with uncommitted changes" if tags["git_dirty"] == "true" else ""
    validation = _measures(tags["validation"])
    test_digest = tags.get("evaluated_on")
    recorded = tags.get(f"{_EVALUATION}{test_digest}")
    tested = _measures(recorded) if recorded else "not evaluated yet"
    lines = [f"{tags['family']}: {tested}."]
    if "standing" in tags:
        lines.append(f"{tags['standing'][:1].upper()}{tags['standing'][1:]}.")
    if recorded:
        lines.append(f"Measured as served on test set `{test_digest}`.")
    elif test_digest:
        lines.append("An earlier release measured it in another way; `promote` measures it again.")
    lines.append(f"Trained on {tags['ratings']} (dataset `{tags['data_version']}`, split {tags['split']}).")
    lines.append(f"On the validation rows, before learning from them too: {validation}.")
    if forward := read_forward(tags):
        lines.append(f"O{describe_forward(forward.metrics)[1:]}.")
    lines.append(f"Code {tags['git_commit'][:12]}{dirty}, by {tags['author']}.")
    return "\n\n".join(lines)


def _measures(recorded: str) -> str:
    metrics = json.loads(recorded)
    return ", ".join(f"{label} {metrics[key]:.4f}" for key, label in _SHOWN.items() if key in metrics)


def _version(found: ModelVersion) -> Version:
    return Version(
        name=found.name,
        number=int(found.version),
        stage=found.current_stage or "None",
        tags=dict(found.tags),
        source=found.source or "",
        description=found.description or "",
        created=(found.creation_timestamp or 0) / 1000,
        run_id=found.run_id or "",
    )
