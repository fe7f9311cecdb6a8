"""A champion as manifests of Kubernetes: KServe serves it, a TrainJob trains, a CronJob looks into retraining.

Each document is a dictionary as the API reads it; the files are those of kustomize, a base and its overlays.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from recsys.export.settings import Manifests

PORT = 8000
_USER = 10001  # of the images
_RENDEZVOUS_PORT = 29400
_EVERY_ADDRESS = "0.0.0.0"  # nosec B104: of a pod, and the server wants keys there
_SCRATCH = "/tmp"  # nosec B108: a volume of the pod's own
_PART_OF = "app.kubernetes.io/part-of"
_DNS, _MYSQL, _HTTPS = 53, 3306, 443

Document = dict[str, Any]


def files(settings: Manifests, model_name: str, version: int, family: str) -> dict[str, Document]:
    """Every manifest by its path below the folder of manifests."""
    base = {
        "serviceaccount.yaml": service_account(settings),
        "inferenceservice.yaml": inference_service(settings, model_name, version, family),
        "networkpolicy.yaml": network_policy(settings),
        "cronjob.yaml": retraining(settings, model_name),
    }
    found = {f"base/{name}": document for name, document in base.items()}
    # Not in the base: each time that it is applied, a training begins.
    found["jobs/trainjob.yaml"] = train_job(settings, model_name)
    found["base/kustomization.yaml"] = _kustomization(sorted(base), namespace=settings.namespace)
    found["overlays/development/kustomization.yaml"] = _kustomization(
        ["../../base"], patches=[_replicas(settings, 1, 1)]
    )
    least = max(2, settings.min_replicas)
    found["overlays/production/kustomization.yaml"] = _kustomization(
        ["../../base", "budget.yaml"], patches=[_replicas(settings, least, max(least, settings.max_replicas))]
    )
    found["overlays/production/budget.yaml"] = _budget(settings)
    return found


def write(documents: Mapping[str, Document], folder: Path) -> list[str]:
    """Write manifests as YAML. Overlays that are there already are yours, and stay: returns their paths."""
    kept = []
    for name, document in documents.items():
        path = folder / name
        if name.startswith("overlays/") and path.exists():
            kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=120), encoding="utf-8")
    return kept


def service_account(settings: Manifests) -> Document:
    """An identity with no right in the cluster, and no token to show: nothing of ours asks the cluster."""
    document = _document("v1", "ServiceAccount", settings)
    return document | {"automountServiceAccountToken": False}


def inference_service(settings: Manifests, model_name: str, version: int, family: str) -> Document:
    """The server on the Open Inference Protocol v2. A new version makes a new revision, which gets its share first."""
    share = settings.share if isinstance(settings.share, float) else None
    # Knative alone divides requests between revisions, and alone scales to none.
    knative = share is not None or settings.min_replicas == 0
    document = _document(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        settings,
        {
            "serving.kserve.io/deploymentMode": "Knative" if knative else "Standard",
            "serving.kserve.io/enable-prometheus-scraping": "true",
        },
    )
    scaling = {"scaleMetric": "concurrency", "scaleTarget": 8} if knative else {"scaleMetric": "cpu", "scaleTarget": 70}
    predictor = {
        "annotations": {"recsys/version": str(version), "recsys/family": family},
        "labels": {_PART_OF: settings.name},
        "serviceAccountName": settings.name,
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        **scaling,
        "containers": [_server(settings, model_name)],
        "volumes": [_scratch("data"), _scratch("tmp")],
    }
    if share is not None:
        predictor["canaryTrafficPercent"] = min(99, max(1, math.floor(share * 100 + 0.5)))
    return document | {"spec": {"predictor": predictor}}


def _server(settings: Manifests, model_name: str) -> Document:
    arguments = {"host": _EVERY_ADDRESS, "port": PORT, "workers": 2, "folder": "/data", "items": "none"}
    return {
        "name": "kserve-container",
        "image": settings.serve_image,
        "args": [*_options(arguments), f"--model_name={model_name}"],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "env": [*_tracking(settings), {"name": "PROTOCOL", "value": "v2"}],
        **_secrets(settings),
        # The first form of a version is made before the first answer; a pod that has none yet is not asked.
        "startupProbe": _probe("/v2/health/live", period=2, failures=60),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=3),
        "readinessProbe": _probe("/v2/health/ready", period=5, failures=2),
        "resources": _resources(settings),
        "securityContext": _confined(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": _SCRATCH}],
    }


def network_policy(settings: Manifests) -> Document:
    """Pods that serve or retrain are reached on the server's ports, and reach names, MLflow, MySQL and HTTPS only."""
    tracking = urlsplit(settings.tracking_uri)
    port = tracking.port or (_HTTPS if tracking.scheme == "https" else 80)
    ports = (PORT, 8012, 8013, 8022, 9090)  # of the server; of Knative's proxy beside it, and its metrics
    document = _document("networking.k8s.io/v1", "NetworkPolicy", settings)
    return document | {
        "spec": {
            "podSelector": {"matchLabels": {_PART_OF: settings.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [_tcp(number) for number in ports]}],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": _DNS}, _tcp(_DNS)]},
                {"ports": [_tcp(number) for number in sorted({port, _MYSQL, _HTTPS})]},
            ],
        }
    }


def train_job(settings: Manifests, model_name: str) -> Document:
    """A training of several processes on several nodes, by Kubeflow Trainer's runtime for PyTorch."""
    job = f"{settings.name}-train"
    arguments: Document = {
        "ratings": settings.train_ratings,
        "family": settings.train_family,
        "model_name": model_name,
        "processes": settings.processes,
        "nodes": settings.nodes,
    }
    if settings.nodes > 1:
        arguments["rendezvous"] = f"{job}-node-0-0.{job}:{_RENDEZVOUS_PORT}"  # the first pod, as the JobSet names it
        arguments["resume"] = "auto"
    amounts = {"cpu": settings.cpu, "memory": settings.pod_memory}
    if settings.gpus:
        amounts["nvidia.com/gpu"] = str(settings.gpus)
    document = _document("trainer.kubeflow.org/v1alpha1", "TrainJob", settings)
    document["metadata"] |= {"name": job, "namespace": settings.namespace}
    trainer: Document = {
        "image": settings.train_image,
        "command": ["python", "-m", "steps.train"],
        "args": _options(arguments),
        "env": [*_tracking(settings), *_login(settings), {"name": "RECSYS_DATA", "value": f"{_SCRATCH}/recsys"}],
        "numNodes": settings.nodes,
        "numProcPerNode": 1,  # one step a node, which starts the processes
        "resourcesPerNode": {"requests": amounts, "limits": amounts},
    }
    runtime = {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": "torch-distributed"}
    return document | {"spec": {"runtimeRef": runtime, "trainer": trainer}}


def retraining(settings: Manifests, model_name: str) -> Document:
    """Whether a champion is due, looked into on a schedule; one at a time."""
    document = _document("batch/v1", "CronJob", settings)
    document["metadata"]["name"] = f"{settings.name}-retrain"
    place = "/data/recsys" if settings.claim else f"{_SCRATCH}/recsys"
    container = {
        "name": "retrain",
        "image": settings.train_image,
        "command": ["python", "-m", "steps.retrain"],
        "args": [f"--ratings={settings.train_ratings}", f"--model_name={model_name}"],
        "env": [*_tracking(settings), {"name": "RECSYS_DATA", "value": place}],
        **_secrets(settings),
        "resources": _resources(settings),
        "securityContext": _confined(),
        "volumeMounts": [{"name": "tmp", "mountPath": _SCRATCH}],
    }
    pod: Document = {
        "serviceAccountName": settings.name,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER},
        "containers": [container],
        "volumes": [_scratch("tmp")],
    }
    if settings.claim:
        container["volumeMounts"].append({"name": "ratings", "mountPath": "/data"})
        pod["volumes"].append({"name": "ratings", "persistentVolumeClaim": {"claimName": settings.claim}})
    job = {"backoffLimit": 1, "template": {"metadata": {"labels": {_PART_OF: settings.name}}, "spec": pod}}
    return document | {
        "spec": {
            "schedule": settings.schedule,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": job},
        }
    }


def _document(api: str, kind: str, settings: Manifests, annotations: dict[str, str] | None = None) -> Document:
    metadata: Document = {"name": settings.name, "labels": {_PART_OF: settings.name}}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def _options(arguments: Document) -> list[str]:
    return [f"--{name}={value}" for name, value in arguments.items()]


def _tracking(settings: Manifests) -> list[Document]:
    return [{"name": "MLFLOW_TRACKING_URI", "value": settings.tracking_uri}]


def _secrets(settings: Manifests) -> Document:
    return {"envFrom": [{"secretRef": {"name": settings.secret}}]} if settings.secret else {}


def _login(settings: Manifests) -> list[Document]:
    """Singly, since a TrainJob takes no whole secret."""
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.secret, "key": name, "optional": True}}}
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        if settings.secret
    ]


def _probe(path: str, *, period: int, failures: int) -> Document:
    asked = {"path": path, "port": PORT}
    return {"httpGet": asked, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def _resources(settings: Manifests) -> Document:
    return {
        "requests": {"cpu": settings.cpu, "memory": settings.pod_memory},
        "limits": {"memory": settings.pod_memory},
    }


def _confined() -> Document:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _scratch(name: str) -> Document:
    return {"name": name, "emptyDir": {}}


def _tcp(port: int) -> Document:
    return {"protocol": "TCP", "port": port}


def _kustomization(resources: list[str], namespace: str = "", patches: list[Document] | None = None) -> Document:
    document: Document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    }
    if namespace:
        document["namespace"] = namespace
    return document | ({"patches": patches} if patches else {})


def _replicas(settings: Manifests, least: int, most: int) -> Document:
    text = "\n".join(
        f"- {{op: replace, path: /spec/predictor/{name}, value: {value}}}"
        for name, value in (("minReplicas", least), ("maxReplicas", most))
    )
    return {"target": {"kind": "InferenceService", "name": settings.name}, "patch": text}


def _budget(settings: Manifests) -> Document:
    document = _document("policy/v1", "PodDisruptionBudget", settings)
    document["metadata"]["namespace"] = settings.namespace
    selector = {"matchLabels": {"serving.kserve.io/inferenceservice": settings.name}}
    return document | {"spec": {"minAvailable": 1, "selector": selector}}
