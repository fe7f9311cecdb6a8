"""The cluster that a component runs in, spoken to as its service account."""

import json
from pathlib import Path
from typing import Any

import requests

from recsys.errors import InputError

_ADDRESS = "https://kubernetes.default.svc"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ANSWER_SECONDS = 30
_MANAGER = "recsys"


def apply(service: dict[str, Any], namespace: str, *, address: str = _ADDRESS, account: Path = _ACCOUNT) -> str:
    """Create an InferenceService, or change the one there is into it (server-side apply); returns where it is.

    Args:
        account: folder with the token and the certificate of the cluster, as Kubernetes mounts it into a pod.

    Raises:
        InputError: if this is no pod of a cluster, or the cluster refuses.
    """
    name = service["metadata"]["name"]
    place = f"/apis/{service['apiVersion']}/namespaces/{namespace}/inferenceservices/{name}"
    try:
        token = (account / "token").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"no service account of a cluster is here ({error}); pass -P deploy=manifests, and apply them by kubectl"
        ) from None
    try:
        answer = requests.patch(
            address + place,
            params={"fieldManager": _MANAGER, "force": "true", "fieldValidation": "Strict"},
            data=json.dumps(service),
            headers={"Content-Type": "application/apply-patch+yaml", "Authorization": f"Bearer {token}"},
            verify=str(account / "ca.crt"),
            timeout=_ANSWER_SECONDS,
        )
    except requests.RequestException as error:
        raise InputError(f"{address} does not answer ({type(error).__name__}: {str(error)[:200]})") from None
    if not answer.ok:
        raise InputError(
            f"the cluster refused InferenceService {name!r} in namespace {namespace!r} ({answer.status_code}: "
            f"{' '.join(answer.text.split())[:500]}); the role of the pipeline's service account needs patch and "
            "create on inferenceservices"
        )
    return place
