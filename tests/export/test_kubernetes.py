"""Manifests of a version: each is what the API of its kind takes, and says what was asked for."""

import copy
from typing import Any

import pytest
import yaml

from recsys.errors import InputError
from recsys.export import kubernetes
from recsys.export.settings import Manifests
from recsys.settings import parse_settings
from steps.support.entrypoint import parse
from tests.support.kubernetes_schemas import RefusedError, check

VARIANTS: list[dict[str, Any]] = [
    {},
    {"share": 0.1},
    {"min_replicas": 0},
    {"nodes": 4, "processes": 2, "gpus": 2, "claim": "ratings"},
    {"secret": "", "tracking_uri": "https://mlflow.example"},
]


def made(**given: Any) -> dict[str, dict[str, Any]]:
    return kubernetes.files(Manifests(**given), "recsys", 3, "bayesian_mf")


def parts(document: Any, key: str) -> list[Any]:
    """Every value under a key, wherever in a document."""
    if isinstance(document, list):
        return [found for part in document for found in parts(part, key)]
    if not isinstance(document, dict):
        return []
    return [value for name, value in document.items() if name == key] + parts(list(document.values()), key)


@pytest.mark.parametrize("given", VARIANTS, ids=str)
def test_every_manifest_is_one_that_the_api_takes(given):
    documents = made(**given)
    assert {document["kind"] for document in documents.values()} == {
        *("ServiceAccount", "InferenceService", "NetworkPolicy", "TrainJob", "CronJob"),
        *("Kustomization", "PodDisruptionBudget"),
    }
    for document in documents.values():
        check(document)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("inferenceservice", ("spec", "predictor")),
        ("inferenceservice", ("spec", "predictor", "containers", 0)),
        ("inferenceservice", ("spec", "predictor", "containers", 0, "readinessProbe", "httpGet")),
        ("inferenceservice", ("spec", "predictor", "containers", 0, "securityContext")),
        ("inferenceservice", ("spec",)),
        ("trainjob", ("spec",)),
        ("trainjob", ("spec", "trainer")),
        ("cronjob", ("spec", "jobTemplate", "spec", "template", "spec")),
        ("networkpolicy", ("spec", "egress", 0)),
        ("serviceaccount", ()),
    ],
)
def test_a_typing_error_in_a_field_is_refused(name, where):
    documents = made(share=0.1)
    document = copy.deepcopy(documents.get(f"base/{name}.yaml") or documents[f"jobs/{name}.yaml"])
    place = document
    for step in where:
        place = place[step]
    place["replicaz"] = 1
    with pytest.raises(RefusedError):
        check(document)


@pytest.mark.parametrize(
    ("field", "value"), [("minReplicas", "1"), ("scaleMetric", "processors"), ("canaryTrafficPercent", 0.5)]
)
def test_a_value_of_another_type_is_refused(field, value):
    document = copy.deepcopy(made()["base/inferenceservice.yaml"])
    document["spec"]["predictor"][field] = value
    with pytest.raises(RefusedError):
        check(document)


@pytest.mark.parametrize(("share", "percent"), [(0.1, 10), (0.25, 25), (0.001, 1), (0.999, 99)])
def test_a_share_is_the_percentage_of_the_new_revision_which_knative_divides(share, percent):
    service = made(share=share)["base/inferenceservice.yaml"]
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == percent
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"


def test_without_a_share_all_requests_go_to_the_new_revision():
    predictor = made()["base/inferenceservice.yaml"]["spec"]["predictor"]
    assert "canaryTrafficPercent" not in predictor
    assert predictor["annotations"] == {"recsys/version": "3", "recsys/family": "bayesian_mf"}


def test_the_server_is_asked_by_the_protocol_v2_for_its_health():
    server = made()["base/inferenceservice.yaml"]["spec"]["predictor"]["containers"][0]
    assert {"name": "PROTOCOL", "value": "v2"} in server["env"]
    assert {server[f"{probe}Probe"]["httpGet"]["path"] for probe in ("liveness", "startup")} == {"/v2/health/live"}
    assert server["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8000}


def test_no_container_of_ours_is_root_or_writes_where_nothing_is_mounted():
    documents = made(claim="ratings")
    contexts = [
        context
        for name in ("inferenceservice", "cronjob")
        for containers in parts(documents[f"base/{name}.yaml"], "containers")
        for context in parts(containers, "securityContext")
    ]
    assert len(contexts) == 2
    for context in contexts:
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["allowPrivilegeEscalation"]
    assert documents["base/serviceaccount.yaml"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("given", VARIANTS, ids=str)
def test_the_steps_take_the_arguments_of_their_containers(given):
    documents = made(**given)
    server = documents["base/inferenceservice.yaml"]["spec"]["predictor"]["containers"][0]
    parse("serve", server["args"])
    trainer = documents["jobs/trainjob.yaml"]["spec"]["trainer"]
    assert trainer["command"] == ["python", "-m", "steps.train"]
    parse("train", trainer["args"])
    (retrain,) = documents["base/cronjob.yaml"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert retrain["command"] == ["python", "-m", "steps.retrain"]
    parse("retrain", retrain["args"])


def test_applying_the_base_begins_no_training():
    documents = made()
    listed = {name for name, one in documents.items() if name.startswith("base/") and one["kind"] != "Kustomization"}
    assert {f"base/{name}" for name in documents["base/kustomization.yaml"]["resources"]} == listed
    assert "TrainJob" not in {documents[name]["kind"] for name in listed}


def test_the_training_job_meets_where_its_first_pod_is():
    trainer = made(nodes=4, processes=2, gpus=2)["jobs/trainjob.yaml"]["spec"]["trainer"]
    assert trainer["numNodes"] == 4
    assert {"--nodes=4", "--processes=2", "--rendezvous=recsys-train-node-0-0.recsys-train:29400"} <= set(
        trainer["args"]
    )
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "2"
    alone = made()["jobs/trainjob.yaml"]["spec"]["trainer"]["args"]
    assert not any("rendezvous" in argument for argument in alone)


def test_overlays_that_are_there_stay_and_the_base_is_written_anew(tmp_path):
    assert kubernetes.write(made(), tmp_path) == []
    mine = tmp_path / "overlays/production/kustomization.yaml"
    mine.write_text("resources: [../../base]\n", encoding="utf-8")
    assert "overlays/production/kustomization.yaml" in kubernetes.write(made(max_replicas=9), tmp_path)
    assert mine.read_text(encoding="utf-8") == "resources: [../../base]\n"
    service = yaml.safe_load((tmp_path / "base/inferenceservice.yaml").read_text(encoding="utf-8"))
    assert service["spec"]["predictor"]["maxReplicas"] == 9


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("namespace", "Recsys", "small letters, digits and -"),
        ("name", "-recsys", "small letters, digits and -"),
        ("cpu", "two", "a quantity of Kubernetes"),
        ("pod_memory", "8 GB", "a quantity of Kubernetes"),
        ("schedule", "every day", "five fields of cron"),
        ("tracking_uri", "sqlite:///mlflow.db", "tracking_uri"),
        ("share", "1.5", "share"),
        ("min_replicas", "9", "at most max_replicas=4, got 9"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_at_once(name, value, said):
    with pytest.raises(InputError, match=said):
        parse_settings(Manifests, {name: value})
