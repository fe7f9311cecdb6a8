"""How a version was made, as a predicate in the words of SLSA's provenance."""

import json
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.runtime.files import digest_file
from recsys.runtime.machine import describe_machine, installed_versions
from recsys.serving.integrity import STATEMENT
from recsys.settings import Settings, parse_settings
from steps import PROJECT
from steps.support.parameters import TrainParameters
from steps.support.runs import made_by

_REQUIREMENTS = PROJECT / "requirements.txt"
_MACHINE = "recsys_machine"  # an extension field, as SLSA allows them


def predicate(parameters: Settings, config: Settings, dataset: Dataset, run_id: str) -> dict[str, Any]:
    """Parameters, dataset, commit, pins, machine and run of a training that ends now."""
    made = made_by()
    dependencies = [
        {"name": "dataset", "uri": dataset.preparation.ratings, "digest": {"blake2b-128": dataset.digest}},
        {"name": "code", "digest": {"gitCommit": made["git_commit"]}, "annotations": {"changed": made["git_dirty"]}},
        {"name": "requirements.txt", "digest": {"blake2b-128": digest_file(_REQUIREMENTS)}},
    ]
    return {
        "buildDefinition": {
            "buildType": "recsys/train/v1",
            "externalParameters": parameters.model_dump(mode="json"),
            "internalParameters": config.model_dump(mode="json"),
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": platform.node(), "version": versions_here()},
            "metadata": {
                "invocationId": run_id,
                "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
                _MACHINE: describe_machine(os.environ),
            },
        },
    }


def versions_here() -> dict[str, str]:
    """Versions of Python and of the packages of requirements.txt."""
    lines = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return installed_versions(found[0] for line in lines if (found := re.match(r"[\w-]+", line)))


@dataclass(frozen=True)
class Provenance:
    """How a version was made, read back from its statement."""

    given: dict[str, Any]  # parameters of `train`, as typed
    settings: dict[str, Any]  # of the family
    ratings: str
    dataset: str  # digest
    commit: str
    changed: str  # "true" where the code had changes that are in no commit
    run_id: str
    finished: str
    host: str
    versions: dict[str, str]
    machine: dict[str, str]  # empty where an earlier release made it

    def parameters(self) -> TrainParameters:
        """The parameters of `train`; raises InputError where this release does not know one."""
        return parse_settings(TrainParameters, self.given)

    def config(self) -> Settings:
        """The settings of the family; raises InputError where this release does not know one."""
        return parse_settings(family_module(str(self.given.get("family"))).Config, self.settings)


def read_provenance(folder: Path) -> Provenance:
    """How the version whose files are in a folder was made; raises InputError if it does not say."""
    try:
        predicate = json.loads((folder / STATEMENT).read_text(encoding="utf-8"))["predicate"]
        build, details = predicate["buildDefinition"], predicate["runDetails"]
        dataset, code = ({d["name"]: d for d in build["resolvedDependencies"]}[name] for name in ("dataset", "code"))
        metadata = details["metadata"]
        return Provenance(
            given=dict(build["externalParameters"]),
            settings=dict(build["internalParameters"]),
            ratings=dataset["uri"],
            dataset=dataset["digest"]["blake2b-128"],
            commit=code["digest"]["gitCommit"],
            changed=code["annotations"]["changed"],
            run_id=metadata["invocationId"],
            finished=metadata["finishedOn"],
            host=details["builder"]["id"],
            versions=dict(details["builder"]["version"]),
            machine=dict(metadata.get(_MACHINE, {})),
        )
    except FileNotFoundError:
        raise InputError(
            "it does not say how it was made: an earlier release, or another tool, registered it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"its {STATEMENT} does not say how it was made ({type(error).__name__}: {error})") from None
