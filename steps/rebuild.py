"""Rebuild: train a version again from what the registry says of it, and compare the files."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.data.dataset import Dataset
from recsys.errors import InputError
from recsys.runtime.machine import describe_machine, differing
from steps.prepare import gigabytes_of, prepare_once
from steps.support import datasets, feature_store
from steps.support.distributed import fitting_together
from steps.support.entrypoint import run_step
from steps.support.integrity_parameters import RebuildParameters
from steps.support.other_code import has_commit, train_by_commit
from steps.support.parameters import TrainParameters
from steps.support.provenance import Provenance, read_provenance, versions_here
from steps.support.runs import made_by, open_run
from steps.train import going_on

if TYPE_CHECKING:
    from recsys.tracking.runs import Run
    from registry.differences import Comparison
    from registry.versions import Version


WARM_START = "warm_start"  # on a version: the one that its training went on from


@dataclass(frozen=True)
class Rebuilt:
    """What came of training a version again; `problem` where it could not be."""

    comparison: "Comparison | None" = None
    code: str = ""
    machine: dict[str, tuple[str, str]] | None = None  # what is not alike, here and then
    problem: str = ""


def rebuild(parameters: RebuildParameters) -> dict[int, Rebuilt]:
    """Train versions again and print a line for each: identical, or what differs first and by how much.

    Raises:
        InputError: if one did not come out identical, after all lines.
    """
    from registry import versions

    name, asked = parameters.model_name, parameters.version
    found = versions.find_or_raise_version(name, None if asked == "all" else asked)
    rebuilt: dict[int, Rebuilt] = {}
    with open_run("rebuild") as run:
        run.log_parameters(parameters)
        for version in versions.list_versions(name) if asked == "all" else [found]:
            try:
                one = _rebuild(version, parameters, run)
            except InputError as error:
                one = Rebuilt(problem=str(error))
            rebuilt[version.number] = one
            _tell(version, one)
        same = [number for number, one in rebuilt.items() if one.comparison and one.comparison.identical]
        other = [number for number in rebuilt if number not in same]
        run.log_json({str(number): asdict(one) for number, one in rebuilt.items()}, "rebuild.json")
        run.log_metrics({"identical": len(same), "not_identical": len(other)})
        run.describe(f"identical: {_listed(same)}; not identical: {_listed(other)}", f"rebuild: {_listed([*rebuilt])}")
        if other:
            raise InputError(
                f"model {name!r}: not as registered when trained again: version {_listed(other)}, see above"
            )
    return rebuilt


def _rebuild(version: "Version", parameters: RebuildParameters, run: "Run") -> Rebuilt:
    from recsys.serving.pyfunc_model import ARTIFACT
    from registry import differences, integrity

    with tempfile.TemporaryDirectory() as temporary:
        place, _ = integrity.fetch_checked(version, Path(temporary) / "registered")
        try:
            made = read_provenance(place)
        except InputError as error:
            raise InputError(f"version {version.number} of {version.name!r} cannot be made again: {error}") from None
        again = Path(temporary) / "again"
        again.mkdir()
        code, elsewhere = _code_of(made, parameters.code)
        ratings = parameters.ratings or made.ratings
        if elsewhere:
            saved = train_by_commit(made.commit, {**made.given, "ratings": ratings}, made.settings, again)
        else:
            saved = _train_here(version, made, ratings, parameters.folder, again, run)
        compared = differences.compare_folders(place / "artifacts" / ARTIFACT, saved)
    here = describe_machine(os.environ) | versions_here()
    return Rebuilt(compared, code, differing(here, made.machine | made.versions))


def _code_of(made: Provenance, wanted: str) -> tuple[str, bool]:
    """Which code trains, in words, and whether it is that of another commit than the one checked out."""
    here = made_by()
    commit = made.commit[:12]
    changes = "; it had uncommitted changes, which nobody has" if made.changed == "true" else ""
    if made.commit == here["git_commit"]:
        ours = "; there are uncommitted changes here" if here["git_dirty"] == "true" else ""
        return f"commit {commit}, which is checked out{changes}{ours}", False
    if wanted == "here":
        return f"that of here, commit {here['git_commit'][:12]}, as asked; the version's is {commit}{changes}", False
    if made.commit == "unknown" or not has_commit(made.commit):
        return f"that of here; the version's commit {commit} is not in this clone{changes}", False
    return f"commit {commit} of this clone{changes}", True


def _train_here(version: "Version", made: Provenance, ratings: str, folder: str, again: Path, run: "Run") -> Path:
    """Train by the code of this checkout; where the recommender is saved."""
    from recsys.training import trainer

    # What is only measured changes nothing of what is kept; what was interrupted has nothing to do with this.
    changes = {"folder": folder, "ratings": ratings, "forward": False, "resume": "none"}
    parameters, config = made.parameters().model_copy(update=changes), made.config()
    dataset, earlier = _obtain(made.dataset, parameters), None
    if parameters.warm_start != "none":
        on_record = parameters.model_copy(update={"warm_start": int(version.tags[WARM_START])})
        dataset, earlier, _ = going_on(on_record, dataset, None, streamed=False)

    def train(fit_all: Any = None) -> Path:
        done = trainer.train(
            parameters.family,
            dataset,
            config,
            seed=parameters.seed,
            refit=parameters.refit,
            lists=parameters.lists,
            gigabytes=gigabytes_of(parameters.memory),
            fit_all=fit_all,
            stored=feature_store.point_in_time(parameters, dataset) if parameters.feature_store else None,
            warm_start=earlier,
        )
        done.final.save(again)
        return again

    if not made.parameters().together:
        return train()
    with fitting_together(parameters, config, dataset, run) as (_, fit_all):
        return train(fit_all)


def _obtain(digest: str, parameters: TrainParameters) -> Dataset:
    """The dataset of a digest, from where prepared ones are kept, or prepared again from its ratings."""
    if datasets.is_kept(digest):
        return datasets.load(digest)
    dataset = prepare_once(parameters, parameters.folder, parameters.memory, "ignore")
    if dataset.digest != digest:
        raise InputError(
            f"the ratings in {parameters.ratings} are not those it learnt from: they make dataset "
            f"{dataset.digest[:12]}, and {digest[:12]} is needed; pass -P ratings=… with the file as it was"
        )
    return dataset


def _tell(version: "Version", one: Rebuilt) -> None:
    print(f"version {version.number}, {version.family or 'foreign'}: {one.comparison or one.problem}", flush=True)
    if one.code:
        print(f"    code: {one.code}")
    if one.machine:
        for name, (here, then) in one.machine.items():
            print(f"    {name}: {here} here, {then} then")
    elif one.machine is not None:
        print("    processor, threads and package versions as then")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


if __name__ == "__main__":
    run_step("rebuild", rebuild)
