"""How a version was made, as a predicate in the words of SLSA's provenance."""

import platform
from datetime import UTC, datetime
from typing import Any

from recsys.data.dataset import Dataset
from recsys.runtime.files import digest_file
from recsys.settings import Settings
from steps import PROJECT
from steps.support.runs import made_by


def predicate(parameters: Settings, config: Settings, dataset: Dataset, run_id: str) -> dict[str, Any]:
    """Parameters, dataset, commit, pins, machine and run of a training that ends now."""
    made = made_by()
    dependencies = [
        {"name": "dataset", "uri": dataset.preparation.ratings, "digest": {"blake2b-128": dataset.digest}},
        {"name": "code", "digest": {"gitCommit": made["git_commit"]}, "annotations": {"changed": made["git_dirty"]}},
        {"name": "requirements.txt", "digest": {"blake2b-128": digest_file(PROJECT / "requirements.txt")}},
    ]
    return {
        "buildDefinition": {
            "buildType": "recsys/train/v1",
            "externalParameters": parameters.model_dump(mode="json"),
            "internalParameters": config.model_dump(mode="json"),
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": platform.node(), "version": {"python": platform.python_version()}},
            "metadata": {"invocationId": run_id, "finishedOn": datetime.now(UTC).isoformat(timespec="seconds")},
        },
    }
