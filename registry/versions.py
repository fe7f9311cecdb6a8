"""Registered versions: what they are, where they stand, and how they did on which test set."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

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
from registry import documents
from registry.forward import DOCUMENT, ForwardMeasures, describe_forward, forward_of_tags, unpack_forward
from registry.replicates import ListReplicates, pack, pack_lists, unpack, unpack_lists

MODEL_DESCRIPTION = (
    "Recommender: for `user_id, item_id` it answers the expected `rating` and the `like_probability`, for `user_id` "
    "alone the list of `n` items that the user most probably takes and likes. "
    "The version in Production carries the alias `champion`; every version's description says how it does."
)
PROVENANCE = "provenance"  # on a version: the digest of the statement of its files' digests
ROLLED_BACK = "rolled_back"  # on a version taken out of Production: a RolledBack as text
STANDING = "standing"  # whether it is in Production and since when, or what replaced it
IN_PRODUCTION, REPLACED_BY = "in Production since ", "replaced by version "  # how that begins
ON_TRIAL, TRIAL_ENDED = "on trial since ", "its trial ended on "  # or so
# By test set, and by how its rows were measured, so that figures of an earlier release, or written by one in use beside
# this, are never compared with those of this one. Names of documents, and of tags in the release before.
_EVALUATION = f"evaluation.{PROTOCOL}."
_REPLICATES = f"replicates.{PROTOCOL}."
_LIST_REPLICATES = f"list_replicates.{PROTOCOL}."
_MEASURED_ON = "Measured as served on test set "
_SHOWN = {"auc": "AUC", "auc_per_user": "per-user AUC", "rmse": "RMSE", "mae": "MAE"}


@dataclass(frozen=True)
class RolledBack:
    """A version was taken out of Production: which one took its place, by whom and at which ISO time."""

    to: int
    by: str
    at: str

    def __str__(self) -> str:
        return f"{self.at} to version {self.to} by {self.by}"

    @classmethod
    def of(cls, text: str) -> "RolledBack":
        """What `str` of it was; the release before wrote JSON."""
        if text.startswith("{"):
            return cls(**json.loads(text))
        at, _, rest = text.partition(" to version ")
        to, _, by = rest.partition(" by ")
        return cls(int(to), by, at)


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
    run_id: str = ""  # that trained it

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
        found = RolledBack.of(recorded)
        return f"rolled back by {found.by} on {found.at[:10]}"

    @property
    def standing(self) -> str | None:
        """Whether it is in Production, since when and why, or what replaced it; None where it never was there."""
        said = next((text for text in self.description.split("\n\n") if _is_standing(text)), None)
        return f"{said[:1].lower()}{said[1:].removesuffix('.')}" if said else self.tags.get(STANDING)

    @property
    def model_id(self) -> str | None:
        """The logged model behind the version."""
        return self.source.removeprefix("models:/") if self.source.startswith("models:/m-") else None

    @property
    def forward(self) -> ForwardMeasures | None:
        """How its training did on the newest of its rows; None where that was not measured."""
        found = self._document(DOCUMENT) or forward_of_tags(self.tags)
        return unpack_forward(found) if found else None

    def metrics_on(self, test_digest: str) -> dict[str, float] | None:
        """The metrics recorded for a test set, None where the version was not evaluated on it as served."""
        found = self._measured(test_digest)
        return None if found is None else {key: float(value) for key, value in found["metrics"].items()}

    def replicates_on(self, test_digest: str) -> Floats | None:
        """The bootstrap replicates of its AUC on a test set, shape (replicates,), to about 1e-5."""
        return self._replicates(test_digest, "auc")

    def user_replicates_on(self, test_digest: str) -> Floats | None:
        """As `replicates_on`, of its per-user AUC; None where that does not exist."""
        return self._replicates(test_digest, "auc_per_user")

    def list_replicates_on(self, test_digest: str) -> ListReplicates | None:
        """The replicates of its lists on a test set, None where there are none."""
        packed = (self._measured(test_digest) or {}).get("list_replicates")
        return unpack_lists(packed) if packed else None

    def _replicates(self, test_digest: str, measure: str) -> Floats | None:
        found = self._measured(test_digest) or {"metrics": {}}
        if measure not in found["metrics"] or measure not in found["replicates"]:
            return None
        return unpack(found["replicates"][measure], found["metrics"][measure])

    def _measured(self, test_digest: str) -> dict[str, Any] | None:
        return self._document(f"{_EVALUATION}{test_digest}.json") or _measured_of_tags(self.tags, test_digest)

    def _document(self, name: str) -> dict[str, Any] | None:
        return documents.find(self.run_id, name) if self.family else None


def _measured_of_tags(tags: Mapping[str, str], test_digest: str) -> dict[str, Any] | None:
    """The document that a version of the release before carries as tags."""
    if (recorded := tags.get(_EVALUATION + test_digest)) is None:
        return None
    _, *packed = tags.get(_REPLICATES + test_digest, "").split(" ")  # the first is a time
    found = {"metrics": json.loads(recorded), "replicates": dict(zip(("auc", "auc_per_user"), packed, strict=False))}
    if lists := tags.get(_LIST_REPLICATES + test_digest):
        found["list_replicates"] = lists.split(" ")[1:]
    return found


@uninterrupted()
def register(run_id: str, model_id: str, name: str, tags: Mapping[str, str], description: str) -> Version:
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
                name, source, run_id, tags=dict(tags), description=description, model_id=model_id
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
    lists: ListReplicates | None = None,
) -> Version:
    """Remember a version's metrics on a test set, as a document of it, and say them in its description.

    Args:
        replicates: bootstrap replicates of the AUC, shape (replicates,).
        user_replicates: the same of the per-user AUC.
        lists: the same of its lists.

    Raises:
        InputError: if the run that trained it is gone.
    """
    client, number = MlflowClient(), str(version.number)
    drawn = {"auc": replicates, "auc_per_user": user_replicates}
    packed = {
        name: pack(values, metrics[name]) for name, values in drawn.items() if values is not None and name in metrics
    }
    content = {
        "test_digest": test_digest,
        "measured": PROTOCOL,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": dict(metrics),
        "replicates": packed,
    }
    if lists is not None:
        content["list_replicates"] = pack_lists(lists)
    documents.keep(version.run_id, f"{_EVALUATION}{test_digest}.json", content)
    if "auc" in metrics:
        client.set_model_version_tag(version.name, number, "auc", f"{metrics['auc']:.4f}")
    elif "auc" in version.tags:
        client.delete_model_version_tag(version.name, number, "auc")  # it was of another test set
    found = find_or_raise_version(version.name, version.number)  # its standing may have changed meanwhile
    measured = f"{version.family}: {_measures(metrics)}."
    told = _telling(found.description, _MEASURED_ON, f"{_MEASURED_ON}`{test_digest}`.", measured)
    client.update_model_version(version.name, number, told)
    return find_or_raise_version(version.name, version.number)


def record_served_form(version: Version, rank: int, loss: Mapping[str, float]) -> None:
    """Remember what a version's served form loses against it, as a document of it.

    Raises:
        InputError: if the run that trained it is gone.
    """
    documents.keep(version.run_id, f"served_form_r{rank}.json", {"rank": rank, "loss": dict(loss)})


@uninterrupted()
def tag(version: Version, key: str, value: str) -> None:
    """Write a tag of a version."""
    MlflowClient().set_model_version_tag(version.name, str(version.number), key, value)


def describe(
    family: str, about: Mapping[str, str], validation: Mapping[str, float], forward: Mapping[str, float] | None = None
) -> str:
    """The description of a new version for people; its beginning is all that a list of versions shows.

    Args:
        about: `ratings`, `data_version`, `split`, `git_commit`, `git_dirty` and `author`.
        validation: measures on the validation rows.
        forward: measures on the newest rows, where there are any.
    """
    dirty = " with uncommitted changes" if about["git_dirty"] == "true" else ""
    lines = [
        f"{family}: not evaluated yet.",
        f"Trained on {about['ratings']} (dataset `{about['data_version']}`, split {about['split']}).",
        f"On the validation rows, before learning from them too: {_measures(validation)}.",
    ]
    if forward:
        lines.append(f"O{describe_forward(forward)[1:]}.")
    lines.append(f"Code {about['git_commit'][:12]}{dirty}, by {about['author']}.")
    return "\n\n".join(lines)


def with_standing(description: str, standing: str) -> str:
    """A description that says where the version stands, in place of what it said of that before."""
    first, *rest = description.split("\n\n")
    kept = [paragraph for paragraph in rest if not _is_standing(paragraph)]
    return "\n\n".join([first, f"{standing[:1].upper()}{standing[1:]}.", *kept])


def _is_standing(paragraph: str) -> bool:
    return paragraph.lower().startswith((IN_PRODUCTION.lower(), REPLACED_BY, ON_TRIAL, TRIAL_ENDED))


def _telling(description: str, beginning: str, paragraph: str, first: str) -> str:
    """A description with another first paragraph, and another one with that beginning; people's own words stay."""
    _, *rest = description.split("\n\n")
    kept = [text for text in rest if not text.startswith(beginning)]
    standing = [text for text in kept if _is_standing(text)]
    return "\n\n".join([first, *standing, paragraph, *(text for text in kept if text not in standing)])


def _measures(metrics: Mapping[str, float]) -> str:
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
