"""Recommend: a version and users in, a file of their lists out."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsys.arrays import Ids
from recsys.data.id_files import read_ids
from recsys.errors import InputError
from recsys.serving.batch import Counts, Order, check_output, write_lists
from steps.support.entrypoint import given_path, run_step
from steps.support.parameters import RecommendParameters
from steps.support.runs import open_run

if TYPE_CHECKING:
    from registry.versions import Version

_ALL = "all"


def recommend(parameters: RecommendParameters) -> Counts:
    """Write the lists of all users, or of those in a file, by one version: by default the champion."""
    from registry import integrity

    output = given_path(parameters.folder, parameters.output, "output").absolute()
    check_output(output)
    with open_run("recommend") as run:
        run.log_parameters(parameters)
        version = _version(parameters)
        run.set_tags({"mlflow.runName": f"recommend by version {version.number}", "version": str(version.number)})
        recommender, names = integrity.load_named_version(version)
        users = None if parameters.users == _ALL else _ids(parameters, "users", "user_id", names)
        order = Order(
            parameters.n,
            parameters.exclude_seen,
            _ids(parameters, "candidates", "item_id", names),
            _ids(parameters, "exclude", "item_id", names),
            parameters.diversity,
            parameters.unknown,
        )
        asked = recommender.knowledge.user_ids if users is None else users
        # What cannot be answered is told by one user, before anything is written.
        told = recommender.recommend(
            asked[:1], order.n, candidates=order.candidates, exclude=order.exclude, unknown=order.unknown
        )
        began = time.perf_counter()
        counts = write_lists(recommender, asked, order, output, f"{version.name}/{version.number}/{version.source}")
        seconds = time.perf_counter() - began
        values = {"users": counts.users, "rows": counts.rows, "short_lists": counts.short, "seconds": seconds}
        run.log_metrics(values | {f"users_{name}": users for name, users in counts.policies.items()})
        run.log_json({"output": str(output), "unknown_items": list(told.unknown)}, "lists.json")
    _tell(version, counts, output, seconds, told.unknown)
    if users is not None and len(strangers := users[recommender.knowledge.user_codes(users) < 0]):
        print(f"note: {len(strangers):,} users are unknown to the version, such as {strangers[0]!r}")
    return counts


def _tell(version: "Version", counts: Counts, output: Path, seconds: float, unknown: tuple[str, ...]) -> None:
    by = ", ".join(f"{users:,} {name}" for name, users in counts.policies.items())
    print(
        f"{output}: {counts.rows:,} items for {counts.users:,} users ({by}), by version {version.number} "
        f"({version.family}), in {seconds:.1f} s"
    )
    if counts.parts_found:
        print(f"note: {counts.parts_found} parts were there from a run that was stopped")
    if unknown:
        shown = json.dumps(unknown[:5], ensure_ascii=False)
        print(f"note: {len(unknown)} candidates or exclusions are unknown to the version and were ignored: {shown}")
    if counts.short:
        print(f"note: {counts.short:,} users have shorter lists, such as {counts.example}")


def _ids(parameters: RecommendParameters, name: str, column: str, names: Mapping[str, str]) -> Ids | None:
    """The ids in the file of a parameter, whose column may have the name that it had in the ratings learnt from."""
    given: str = getattr(parameters, name)
    if not given:
        return None
    columns = list(dict.fromkeys([column, names.get(column, column)]))
    found, repeated = read_ids(given_path(parameters.folder, given, name), columns, name)
    if repeated:
        print(f"note: {name}: {repeated:,} ids are there twice and count once")
    return np.asarray(found, object)


def _version(parameters: RecommendParameters) -> "Version":
    from registry import transitions, versions

    if parameters.version is not None:
        return versions.find_or_raise_version(parameters.model_name, parameters.version)
    versions.find_or_raise_version(parameters.model_name)  # or why there is none
    state = transitions.read_state(parameters.model_name)
    champion = state.find(state.champion)
    if champion is None:
        raise InputError(
            f"model {parameters.model_name!r} has no champion; run the entry point promote first, or pass the number "
            "of a version"
        )
    return champion


if __name__ == "__main__":
    run_step("recommend", recommend)
