"""What is checked at the door: a dataset made of a new file against the one made before it.

A file that lost most of its users, or whose ratings are on another scale, trains without an error and serves worse.
It is told before anything is trained from it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Ids
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.manifest import FORMAT, NAME
from recsys.data.parquet_store import PARTS

_SAMPLED_IDS = 2_000
_RUNS = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True)
class Limits:
    """What may change from one file to the next."""

    gone_users: float = 0.3  # share of the users of the last file
    gone_items: float = 0.3
    fewer_rows: float = 0.3  # share of its ratings
    repeated: float = 0.1  # rise of the share of repeated pairs in the rows read
    other_ids: float = 0.5  # share of ids of a form that the last file does not have
    level: float = 0.05  # of the range of its scale, change of the mean rating


@dataclass(frozen=True, eq=False)
class Summary:
    """What of a dataset is compared."""

    name: str
    ratings: int
    user_ids: Ids
    item_ids: Ids
    scale: tuple[float, float]
    repeated: float  # share of the rows read that repeat a pair
    mean: float
    newest: float | None  # moment, in the unit of the file


def summarize(dataset: Dataset) -> Summary:
    """Read all parts of a dataset, some rows at a time."""
    total, newest = 0.0, -np.inf
    for part in PARTS:
        for rows in dataset.blocks(part):
            total += float(rows.ratings.sum())
            if rows.timestamps is not None:
                newest = max(newest, float(np.nanmax(rows.timestamps, initial=-np.inf)))
    manifest = dataset.manifest
    return Summary(
        str(manifest["source"]),
        int(manifest["ratings"]),
        dataset.user_ids,
        dataset.item_ids,
        dataset.scale,
        int(manifest["dropped"].get("repeated_pair", 0)) / max(int(manifest["rows_read"]), 1),
        total / int(manifest["ratings"]),
        float(newest) if np.isfinite(newest) else None,
    )


def compare(new: Summary, old: Summary, limits: Limits | None = None) -> list[str]:
    """One sentence for everything that changed more than it may; an empty list where nothing did."""
    limits = limits or Limits()
    found = [
        _gone(new.user_ids, old.user_ids, "users", limits.gone_users),
        _gone(new.item_ids, old.item_ids, "items", limits.gone_items),
        _other_form(new.user_ids, old.user_ids, "user ids", limits.other_ids),
        _other_form(new.item_ids, old.item_ids, "item ids", limits.other_ids),
    ]
    if new.ratings < (1 - limits.fewer_rows) * old.ratings:
        found.append(f"there are {new.ratings:,} ratings, {old.ratings:,} in the last file")
    if new.scale != old.scale:
        found.append(
            f"ratings are from {new.scale[0]:g} to {new.scale[1]:g}, {old.scale[0]:g} to {old.scale[1]:g} before"
        )
    elif abs(new.mean - old.mean) > limits.level * (old.scale[1] - old.scale[0]):
        found.append(f"ratings are {new.mean:.2f} on average, {old.mean:.2f} before")
    if new.repeated - old.repeated > limits.repeated:
        found.append(f"{new.repeated:.0%} of the rows repeat a pair, {old.repeated:.0%} before")
    if old.newest is not None and (new.newest is None or new.newest < old.newest):
        said = "there are no timestamps" if new.newest is None else f"the newest rating is of {new.newest:g}"
        found.append(f"{said}, of {old.newest:g} before: this looks like an older file")
    return [sentence for sentence in found if sentence]


def _gone(new: Ids, old: Ids, kind: str, most: float) -> str:
    gone = len(set(old.tolist()) - set(new.tolist())) / len(old)
    return f"{gone:.0%} of the {len(old):,} {kind} of the last file are missing" if gone > most else ""


def _other_form(new: Ids, old: Ids, kind: str, most: float) -> str:
    known = set(_forms(old))
    forms = _forms(new)
    other = sum(count for form, count in forms.items() if form not in known) / max(sum(forms.values()), 1)
    if other <= most:
        return ""
    example = next(str(name) for name in new if _form(str(name)) not in known)
    return f"{other:.0%} of the {kind} have another form than in the last file, such as {example!r} and {str(old[0])!r}"


def _forms(ids: Ids) -> Counter[str]:
    """How often each form occurs, in a sample that is the same every time."""
    step = max(1, len(ids) // _SAMPLED_IDS)
    return Counter(_form(str(name)) for name in ids[::step])


def _form(name: str) -> str:
    """An id with each run of letters as `a`, and each run of digits as `9`."""
    return _RUNS.sub(lambda run: "9" if run.group()[0].isdigit() else "a", name)


def find_predecessor(dataset: Dataset, folder: Path) -> Dataset | None:
    """The dataset prepared last of a file of the same name, numbers in it aside (such as dates); None for the first."""
    manifests = []
    for path in folder.glob("[0-9a-f]*"):
        try:
            manifest = json.loads((path / NAME).read_text(encoding="utf-8"))
            manifests.append(({**manifest, "digest": path.name}, path.stat().st_mtime))
        except (OSError, ValueError, TypeError):
            continue  # what cannot be read is no predecessor
    digest = name_predecessor(dataset, manifests)
    return load_dataset(digest, folder) if digest else None


def name_predecessor(dataset: Dataset, manifests: Iterable[tuple[dict[str, Any], float]]) -> str | None:
    """The digest of the predecessor among manifests, each with the time in seconds it was last asked for."""
    found = []
    series = _series(dataset.manifest["source"])
    for manifest, moment in manifests:
        try:
            is_same = manifest["format"] == FORMAT and _series(manifest["source"]) == series
            if is_same and manifest["digest"] != dataset.digest:
                found.append((manifest["created"], moment, manifest["digest"]))
        except (KeyError, TypeError):
            continue
    return str(max(found)[2]) if found else None


def _series(source: str) -> str:
    path = Path(source)
    return str(path.with_name(re.sub(r"[\d_.-]*\d", "9", path.name)))
