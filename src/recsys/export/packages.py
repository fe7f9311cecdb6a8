"""A version packed for model servers of other makers: an archive of TorchServe, a folder of MLServer."""

import json
import shutil
from pathlib import Path

from recsys.export import torchserve_handler

_HERE = Path(__file__).resolve().parent


def torchserve(files: Path, name: str, number: int, folder: Path) -> Path:
    """Write `<name>-<number>.mar`, with the files of a version, the code that reads them, and the handler.

    Args:
        files: the checked files of the version, as MLflow keeps them.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging import generate_model_archive

    staged = folder / ".staged"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        shutil.copytree(files, staged / "extra" / torchserve_handler.VERSION)
        export = staged / "made"
        export.mkdir()
        handler = str(_HERE / "torchserve_handler.py")
        config = ModelArchiverConfig(
            model_name=name,
            version=str(number),
            handler=handler,
            extra_files=str(staged / "extra"),
            export_path=str(export),
            force=True,
        )
        generate_model_archive(config)
        path = folder / f"{name}-{number}.mar"
        (export / f"{name}.mar").replace(path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return path


def mlserver(files: Path, name: str, number: int, folder: Path) -> Path:
    """Write a folder that `mlserver start` serves: settings, and the files of a version."""
    place = folder / f"mlserver-{number}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(files, place / "model")
    # No workers of its own: MLServer 1.7 cannot start them on the uvloop that it installs.
    settings = {"host": "127.0.0.1", "http_port": 8080, "grpc_port": 8081, "metrics_port": 8082, "parallel_workers": 0}
    model = {
        "name": name,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "./model", "version": str(number)},
    }
    for path, content in (("settings.json", settings), ("model-settings.json", model)):
        (place / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copy(_HERE / "mlserver.txt", place / "requirements.txt")
    return place
