"""Export a version for other runtimes: as ONNX graphs, manifests of Kubernetes, or a package of a model server."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from steps.support.entrypoint import given_folder, run_step
from steps.support.parameters import ExportParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender
    from recsys.tracking.runs import Run
    from registry.versions import Version

_TAG = "onnx"
_INSTALL = "pip install -r src/recsys/export/{}"


def export(parameters: ExportParameters) -> None:
    """Write a version in the format asked for.

    Raises:
        InputError: if there is no such version, what the format needs is not installed, or an answer differs.
    """
    if parameters.format == "onnx":
        _export_graphs(parameters)
        return
    folder = given_folder(parameters.folder, parameters.output, "output")
    if parameters.format == "kserve":
        write_manifests(parameters, folder / "kubernetes")
    else:
        _export_package(parameters, folder)


@contextmanager
def _exporting(parameters: ExportParameters) -> "Iterator[tuple[Run, Version]]":
    """The run of an export, and the version that it is of."""
    from registry import transitions, versions

    with open_run("export") as run:
        run.log_parameters(parameters)
        number = parameters.version or transitions.read_state(parameters.model_name).champion
        version = versions.find_or_raise_version(parameters.model_name, number)
        run.set_tags({"mlflow.runName": f"export version {version.number}", "version": str(version.number)})
        yield run, version


def write_manifests(parameters: ExportParameters, folder: Path) -> dict[str, Any]:
    """Write the manifests of a version for Kubernetes and KServe into a folder, and log them; the InferenceService."""
    from recsys.export import kubernetes

    with _exporting(parameters) as (run, version):
        family = version.family
        if family is None:
            raise InputError(
                f"version {version.number} of {version.name!r} was not registered by recsys (no tag 'family')"
            )
        settings = parameters.model_copy(update={"share": _share(parameters)})
        documents = kubernetes.files(settings, parameters.model_name, version.number, family)
        kept = kubernetes.write(documents, folder)
        place = run.log_folder(folder, "kubernetes")
    print(f"version {version.number} ({family}) as manifests of Kubernetes: {folder}, and {place}")
    for name in kept:
        print(f"note: {name} was there, and stays as it is")
    print(f"next: kubectl apply -k {folder}/overlays/development")
    return documents["base/inferenceservice.yaml"]


def _share(parameters: ExportParameters) -> float | None:
    """The share of requests that a new revision gets at first: where none is given, that of the trial that runs."""
    from registry import transitions

    if parameters.share != "auto":
        return parameters.share
    trial = transitions.read_state(parameters.model_name).trial
    return None if trial is None else trial.share


def _export_package(parameters: ExportParameters, folder: Path) -> None:
    from recsys.export import packages
    from registry import integrity

    with _exporting(parameters) as (run, version), tempfile.TemporaryDirectory() as scratch:
        files, _ = integrity.fetch_checked(version, Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        pack = packages.torchserve if parameters.format == "torchserve" else packages.mlserver
        try:
            path = pack(files, parameters.model_name, version.number, folder)
        except ModuleNotFoundError as error:
            install = _INSTALL.format("torchserve-requirements.txt")
            raise InputError(
                f"format {parameters.format!r} needs {error.name}, which is not installed; {install}"
            ) from None
        run.set_tags({parameters.format: str(path)})
    print(f"version {version.number} ({version.family}) for {parameters.format}: {path}")


def _export_graphs(parameters: ExportParameters) -> None:
    """Write the graphs of a version, compare their answers and speed with the version's, and log them on both.

    Raises:
        InputError: if onnx is not installed, the version cannot be exported, or an answer differs by more than 1e-5.
    """
    try:
        from recsys.export import onnx_graph, parity
    except ModuleNotFoundError as error:
        raise InputError(
            f"format {parameters.format!r} needs {error.name}, which is not installed; "
            + _INSTALL.format("requirements.txt")
        ) from None
    from recsys.serving import graph_scores
    from registry import integrity, probe, versions

    graph_scores.import_runtime()  # before anything is written
    with _exporting(parameters) as (run, version), tempfile.TemporaryDirectory() as scratch:
        recommender = integrity.load_version(version)
        probe.check(version, recommender)
        folder = Path(scratch)
        path = folder / "scores.onnx"
        path.write_bytes(onnx_graph.scores(recommender).SerializeToString())
        measured = parity.compare_scores(recommender, graph_scores.open_session(path))
        if parameters.lists:
            path = folder / "lists.onnx"
            path.write_bytes(onnx_graph.lists(recommender).SerializeToString())
            measured |= parity.compare_lists(recommender, graph_scores.open_session(path))
        (folder / "ids.json").write_text(json.dumps(_ids(recommender)), encoding="utf-8")
        run.log_metrics(measured)
        place = run.log_folder(folder, _TAG)
        versions.tag(version, _TAG, place)
    print(f"version {version.number} ({version.family}) as ONNX: {place}")
    _tell(measured, "scores", "rating_difference", "ratings a second")
    if parameters.lists:
        _tell(measured, "lists", "list_difference", "lists a second")


def _ids(recommender: "Recommender") -> dict[str, list[str]]:
    knowledge = recommender.knowledge
    return {"users": knowledge.user_ids.tolist(), "items": knowledge.item_ids.tolist()}


def _tell(measured: dict[str, float], what: str, difference: str, unit: str) -> None:
    fast = measured[f"onnx_{what}_per_second"], measured[f"version_{what}_per_second"]
    print(
        f"{what}: differ by {measured[f'onnx_{difference}']:.1g} at most; {fast[0]:,.0f} {unit} by onnxruntime, "
        f"{fast[1]:,.0f} by the version itself (processor time, one thread)"
    )


if __name__ == "__main__":
    run_step("export", export)
