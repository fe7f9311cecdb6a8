"""Export a version as a file that other runtimes read, once it is seen to answer as the version does."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InputError
from steps.support.entrypoint import run_step
from steps.support.parameters import ExportParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from recsys.models.base.recommender import Recommender

_TAG = "onnx"
_INSTALL = "pip install -r src/recsys/export/requirements.txt"


def export(parameters: ExportParameters) -> None:
    """Write the graphs of a version, compare their answers and speed with the version's, and log them on both.

    Raises:
        InputError: if onnx is not installed, the version cannot be exported, or an answer differs by more than 1e-5.
    """
    try:
        from recsys.export import onnx_graph, parity
    except ModuleNotFoundError as error:
        raise InputError(
            f"format {parameters.format!r} needs {error.name}, which is not installed; {_INSTALL}"
        ) from None
    from registry import probe, transitions, versions

    with open_run("export") as run, tempfile.TemporaryDirectory() as scratch:
        run.log_parameters(parameters)
        number = parameters.version or transitions.read_state(parameters.model_name).champion
        version = versions.find_or_raise_version(parameters.model_name, number)
        run.set_tags({"mlflow.runName": f"export version {version.number}", "version": str(version.number)})
        recommender = versions.load_version(version)
        probe.check(version, recommender)
        folder = Path(scratch)
        path = folder / "scores.onnx"
        path.write_bytes(onnx_graph.scores(recommender).SerializeToString())
        measured = parity.compare_scores(recommender, parity.open_session(path))
        if parameters.lists:
            path = folder / "lists.onnx"
            path.write_bytes(onnx_graph.lists(recommender).SerializeToString())
            measured |= parity.compare_lists(recommender, parity.open_session(path))
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
