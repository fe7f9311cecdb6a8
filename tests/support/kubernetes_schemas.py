"""What a manifest may say: the schemas of Kubernetes and Kubeflow Trainer from their packages, and KServe's own fields.

Unknown fields are refused everywhere, as by `kubectl apply --validate=strict`. KServe's package does not resolve with
ours, and its custom resource definition has 2 MB: the fields of it that we use stand here, the rest of a predictor is a
pod. `python -m tests.support.kubernetes_schemas FILE` holds both this reduction and our manifests to the whole
definition, once that is the file named here.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

SOURCE = "https://github.com/kserve/kserve/blob/v0.20.0/config/crd/full/serving.kserve.io_inferenceservices.yaml"
SHA256 = "57c3bf13f77de94678bf2ae3748056ec071ad2b9e88d6a28f44fb4710758fcff"
KUBERNETES = "1.33"

_NUMBER32, _NUMBER64 = ({"type": "integer", "format": size} for size in ("int32", "int64"))
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
PREDICTOR: dict[str, Any] = {
    "annotations": _TEXTS,
    "canaryTrafficPercent": _NUMBER64,
    "labels": _TEXTS,
    "maxReplicas": _NUMBER32,
    "minReplicas": _NUMBER32,
    "scaleMetric": {"type": "string", "enum": ["cpu", "memory", "concurrency", "rps"]},
    "scaleTarget": _NUMBER32,
}
"""The fields of `spec.predictor` that are KServe's and that we use; all others are those of a pod's `spec`."""
_KUSTOMIZATION = {"apiVersion", "kind", "resources", "namespace", "patches"}


class RefusedError(Exception):
    """A manifest that the API would refuse."""


def check(document: dict[str, Any]) -> None:
    """Raise RefusedError for a field that is unknown, missing or of another type."""
    kind = document["kind"]
    if kind == "InferenceService":
        _check_service(document)
    elif kind == "TrainJob":
        _check_train_job(document)
    elif kind == "Kustomization":
        if unknown := document.keys() - _KUSTOMIZATION:
            raise RefusedError(f"Kustomization: {sorted(unknown)}")
    else:
        _check_core(document)


def _check_core(document: dict[str, Any]) -> None:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        raise RefusedError(str(error)) from error


def _check_service(document: dict[str, Any]) -> None:
    if document["apiVersion"] != "serving.kserve.io/v1beta1" or document.keys() - {
        *("apiVersion", "kind", "metadata", "spec")
    }:
        raise RefusedError("InferenceService: serving.kserve.io/v1beta1 with metadata and spec is needed")
    if document["spec"].keys() != {"predictor"}:
        raise RefusedError(f"spec: {sorted(document['spec'])}")
    predictor = document["spec"]["predictor"]
    own = {name: value for name, value in predictor.items() if name in PREDICTOR}
    try:
        jsonschema.validate(own, {"type": "object", "properties": PREDICTOR})
    except jsonschema.ValidationError as error:
        raise RefusedError(error.message) from error
    pod = {name: value for name, value in predictor.items() if name not in PREDICTOR}
    _check_core({"apiVersion": "v1", "kind": "Pod", "metadata": document["metadata"], "spec": pod})


def _check_train_job(document: dict[str, Any]) -> None:
    try:
        read = TrainerV1alpha1TrainJob.from_dict(document)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    back = read.to_dict() if read else None
    if back != document:  # what the API's type does not know is left out of it
        raise RefusedError(f"TrainJob: read as {back}")


def closed(schema: Any) -> Any:
    """A schema of a definition that refuses unknown fields, and knows Kubernetes's `int-or-string`."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        found = {"type": ["integer", "string"]}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def definition(path: Path) -> dict[str, Any]:
    """The openAPIV3Schema of an InferenceService from KServe's file, which has to be the one named here."""
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(f"{path}: {SOURCE} is needed (sha256 {SHA256}), this one has {found}")
    versions = yaml.load(content, yaml.CSafeLoader)["spec"]["versions"]
    schema: dict[str, Any] = next(one for one in versions if one["name"] == "v1beta1")["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def differences(schema: dict[str, Any]) -> Iterator[str]:
    """Where the reduction says something else than the whole definition."""
    whole = schema["properties"]["spec"]["properties"]["predictor"]["properties"]
    for name, field in PREDICTOR.items():
        if field != whole.get(name):
            yield f"{name}: here {field}, there {whole.get(name)}"


if __name__ == "__main__":
    from tests.export.test_kubernetes import VARIANTS, made

    whole = definition(Path(sys.argv[1]))
    found = list(differences(whole))
    if found:
        sys.exit("\n".join(found))
    strict = closed(
        {key: value for key, value in whole.items() if key != "properties"} | {"properties": whole["properties"]}
    )
    for given in VARIANTS:
        jsonschema.validate(made(**given)["base/inferenceservice.yaml"], strict)
    print(f"{len(PREDICTOR)} fields and {len(VARIANTS)} manifests are as {SOURCE} says")
