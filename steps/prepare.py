"""Prepare: a ratings file in, a split dataset with features on disk out."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recsys.data import builder, comparison
from recsys.data.dataset import Dataset
from recsys.data.movielens import KNOWN, obtain
from recsys.data.parquet_store import PARTS
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from steps.support import datasets
from steps.support.datasets import prepared_folder
from steps.support.entrypoint import data_folder, given_path, run_step
from steps.support.parameter_groups import OnChange
from steps.support.parameters import PrepareParameters
from steps.support.runs import open_run
from steps.support.stages import stage

if TYPE_CHECKING:
    from recsys.tracking.runs import Run


def prepare(parameters: PrepareParameters) -> Dataset:
    """Prepare a dataset, or find the one there is, and record it in an MLflow run."""
    with open_run("prepare") as run:
        run.log_parameters(parameters)
        source, preparation = locate(parameters, parameters.folder)
        with stage(f"prepare {Path(preparation.ratings).name}"):
            if datasets.is_prepared(source):
                dataset = datasets.adopt(source)
            else:
                dataset = _make(source, preparation, parameters, run)
        _announce(dataset)
        run.describe(_summary(dataset), f"prepare {Path(preparation.ratings).name}")
        run.log_metrics(_counts(dataset))
        run.set_tags({"data_version": dataset.digest, "reused": str(dataset.reused).lower()})
        run.log_dataset(dataset, "preparation")
        run.log_json(dataset.manifest, "manifest.json")
        from recsys.evaluation import plots  # half a second to import: what is wrong with the ratings has been told

        figures = {"ratings_per_user.png": plots.ratings_per_user(dataset)}
        if not dataset.implicit:
            figures["ratings.png"] = plots.rating_histogram(dataset)
        run.log_figures(figures)
    return dataset


def _make(source: Path, preparation: Preparation, parameters: PrepareParameters, run: "Run") -> Dataset:
    datasets.bring(source, preparation)
    dataset = builder.prepare(
        source,
        preparation,
        prepared_folder(),
        gigabytes=gigabytes_of(parameters.memory),
        check=lambda new: _compare(new, parameters.on_change, run),
    )
    datasets.keep(dataset)
    return dataset


def _compare(new: Dataset, on_change: OnChange, run: "Run") -> None:
    """Compare a new dataset with the one of the file before; raises InputError where that is asked for."""
    if on_change == "ignore" or (before := datasets.find_predecessor(new)) is None:
        return
    changes = comparison.compare(comparison.summarize(new), comparison.summarize(before))
    run.set_tags({"compared_with": before.digest, "changes": "; ".join(changes) or "none"})
    if changes and on_change == "refuse":
        raise InputError(
            f"{new.manifest['source']}: it differs from the file before (dataset {before.digest[:12]}): "
            f"{'; '.join(changes)}; correct the file, or pass -P on_change=warn if that is meant"
        )
    for change in changes:
        print(f"warning: compared with the file before (dataset {before.digest[:12]}): {change}")


def prepare_once(
    parameters: Preparation, folder: str, memory: float | Literal["auto"] = "auto", on_change: OnChange = "warn"
) -> Dataset:
    """The dataset for another step: the one there is, or one that is prepared and recorded now."""
    source, preparation = locate(parameters, folder)
    if dataset := datasets.adopt(source) if datasets.is_prepared(source) else datasets.find(source, preparation):
        _announce(dataset)
        return dataset
    given = {"folder": folder, "memory": memory, "on_change": on_change}
    return prepare(PrepareParameters(**given, **preparation.model_dump()))


def gigabytes_of(memory: float | Literal["auto"]) -> float | None:
    """The parameter `memory` as the library takes it."""
    return None if memory == "auto" else memory


def locate(parameters: Preparation, folder: str) -> tuple[Path, Preparation]:
    """The ratings file, fetched where it goes by a name, and the parameters that make a dataset of it."""
    preparation = Preparation(**parameters.model_dump(include=set(Preparation.model_fields)))
    if preparation.ratings in KNOWN:
        return obtain(preparation.ratings, data_folder() / "downloads"), preparation
    if preparation.ratings.startswith(("s3://", "gs://", "http://", "https://")):
        raise InputError(
            "parameter 'ratings': a file, a folder or a pattern on this machine is needed, got "
            f"{preparation.ratings!r}; copy it here, or let an engine that reads it prepare (docs/your-data.md)"
        )
    path = given_path(folder, preparation.ratings, "ratings").absolute()
    return path, preparation.model_copy(update={"ratings": str(path)})


def _announce(dataset: Dataset) -> None:
    manifest = dataset.manifest
    if dataset.reused:
        print(f"reused {dataset.folder}: same ratings, same parameters")
        return
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest["dropped"].items() if count)
    print(
        f"prepared {dataset.folder}: {_summary(dataset)}; dropped {dropped or 'none'} of {manifest['rows_read']:,} "
        "rows read"
    )
    for note in manifest["notes"]:
        print(f"note: {note}")


def _summary(dataset: Dataset) -> str:
    manifest = dataset.manifest
    sizes = ", ".join(f"{manifest['sizes'][part]:,} {part}" for part in PARTS)
    low, high = dataset.scale
    kind, rated = ("takes", "without ratings") if dataset.implicit else ("ratings", f"from {low:g} to {high:g}")
    return (
        f"{manifest['ratings']:,} {kind} ({sizes}) of {manifest['users']:,} users on {manifest['items']:,} items, "
        f"{rated}"
    )


def _counts(dataset: Dataset) -> dict[str, float]:
    manifest = dataset.manifest
    return {
        "dataset_size": manifest["ratings"],
        "feature_count": len(manifest["features"]),
        "rows_read": manifest["rows_read"],
        "users": manifest["users"],
        "items": manifest["items"],
        "density": manifest["ratings"] / (manifest["users"] * manifest["items"]),
        **{f"dropped_{reason}": count for reason, count in manifest["dropped"].items()},
        **{f"{part}_rows": manifest["sizes"][part] for part in PARTS},
    }


if __name__ == "__main__":
    run_step("prepare", prepare)
