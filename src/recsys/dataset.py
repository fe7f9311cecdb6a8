"""The prepared dataset: split, with features, on disk under a name that says what is in it.

A dataset is a folder named by the digest of the ratings it came from and of the parameters that made it:

    manifest.json       what made it, what was dropped, sizes, scale, checksums of this and every other file
    users.parquet       user_id and that user's features from the training rows; row k is user k
    items.parquet       likewise
    train/              part-00000.parquet and so on, of FILE_ROWS rows each: user, item (row numbers in the tables
    validation/         above), rating, timestamp where there is one, in row groups of ROW_GROUP rows
    test/
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import memory, preparing, spill, splits
from recsys.arrays import Flags, Ids
from recsys.errors import InputError
from recsys.features import Features, Statistics
from recsys.inputs import digest_files, estimate_rows, find_files, open_files
from recsys.manifest import FORMAT, find_format, read_manifest, sync, write_manifest
from recsys.parts import PARTS, ROW_GROUP, Interactions, read_blocks, read_part
from recsys.preparing import SIDES, Preparation
from recsys.ratings import Columns, read_ratings

__all__ = [
    "PARTS",
    "Dataset",
    "Interactions",
    "Preparation",
    "find_dataset",
    "load_dataset",
    "newest_dataset",
    "prepare",
]

_STALE_SECONDS = 24 * 3600
_MEMORY_A_ROW = 170  # bytes at the most, measured, while ratings are prepared in memory
_LOADED_A_ROW = 48  # while a part is read: Arrow's columns and NumPy's


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared dataset. Ids and features are in memory; a part is read when it is first asked for."""

    folder: Path
    manifest: dict[str, Any]
    user_ids: Ids
    item_ids: Ids
    features: Features
    reused: bool = False
    held: Mapping[str, Interactions] = field(default_factory=dict)  # parts that are in memory, whatever the folder has

    @cached_property
    def train(self) -> Interactions:
        """The rows to learn from."""
        return self._part("train")

    @cached_property
    def validation(self) -> Interactions:
        """The rows to choose by."""
        return self._part("validation")

    @cached_property
    def test(self) -> Interactions:
        """The rows for the final test."""
        return self._part("test")

    def _part(self, name: str) -> Interactions:
        if name in self.held:
            return self.held[name]
        rows = self.size(name)
        memory.check(
            rows * _LOADED_A_ROW,
            f"dataset {self.digest[:12]}: loading the {rows:,} {name} ratings",
            "use a machine with more, or pass fewer ratings",
        )
        return read_part(self.folder / name)

    def blocks(self, part: str) -> Iterator[Interactions]:
        """The rows of a part, up to ROW_GROUP at a time: memory does not grow with them."""
        if part not in self.held:
            yield from read_blocks(self.folder / part)
            return
        rows = self.held[part]
        for start in range(0, len(rows), ROW_GROUP):
            yield rows[start : start + ROW_GROUP]

    def size(self, part: str) -> int:
        """How many rows a part has."""
        return len(self.held[part]) if part in self.held else int(self.manifest["sizes"][part])

    def holding(self, **parts: Interactions) -> "Dataset":
        """This dataset with other rows in these parts."""
        return replace(self, held={**self.held, **parts})

    @property
    def digest(self) -> str:
        """Names the dataset: its ratings and what made it."""
        return str(self.manifest["digest"])

    @property
    def test_digest(self) -> str:
        """Names the test set: metrics of versions may be compared where this is equal."""
        return str(self.manifest["test_digest"])

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        low, high = self.manifest["scale"]
        return float(low), float(high)

    @property
    def like_threshold(self) -> float:
        """A rating of at least this is a like."""
        return float(self.manifest["preparation"]["like_threshold"])

    @property
    def preparation(self) -> Preparation:
        """The parameters that made it."""
        return Preparation.model_validate(self.manifest["preparation"])

    def likes(self, rows: Interactions) -> Flags:
        """Whether each row is a like: shape (n,)."""
        return rows.ratings >= self.like_threshold


def prepare(source: Path, preparation: Preparation, folder: Path, *, gigabytes: float | None = None) -> Dataset:
    """Read, clean and split ratings and keep the result in `folder`; reuse it where that was done before.

    Args:
        source: a file, a folder of files or a pattern.
        gigabytes: memory to use, in 10^9 bytes; what needs more goes by way of the disk, with the same result. None:
            half of what is available.

    Raises:
        InputError: if the input or a parameter cannot be used. Nothing is left behind then.
    """
    splits.check_sizes(preparation.test_size, preparation.validation_size)
    files = find_files(source)
    digest = _digest_source(files, preparation)
    if found := _find_prepared(digest, folder):
        return found
    columns = Columns(
        preparation.user_column,
        preparation.item_column,
        preparation.rating_column,
        preparation.timestamp_column,
    )
    bar = None if preparation.min_rating == "none" else preparation.min_rating
    rows = estimate_rows(files)
    allowed = memory.available() / 2 if gigabytes is None else gigabytes * 1e9
    with _partial(folder) as partial:
        if rows * _MEMORY_A_ROW <= allowed:
            ratings: preparing.Cleaned = read_ratings(source, columns, separator=preparation.separator, min_rating=bar)
            content = preparing.build(ratings, preparation, partial, source)
        else:
            sources = open_files(files, columns, preparation.separator)
            _check_disk(rows, folder)
            scratch = partial / "spill"
            scratch.mkdir()
            ratings = spill.spill_ratings(source, sources, columns, bar, scratch, rows)
            content = preparing.build(ratings, preparation, partial, source, scratch)
            shutil.rmtree(scratch)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "digest": digest,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": str(source),
            "preparation": preparation.model_dump(),
            "rows_read": ratings.rows_read,
            "dropped": ratings.dropped,
            "notes": list(ratings.notes),
            **content,
        }
        del ratings
        _publish(partial, folder / digest, manifest)
    return _open(folder / digest, manifest)


def find_dataset(source: Path, preparation: Preparation, folder: Path) -> Dataset | None:
    """The dataset that the same ratings and parameters made before, or None; raises InputError if it was altered."""
    return _find_prepared(_digest_source(find_files(source), preparation), folder)


def _find_prepared(digest: str, folder: Path) -> Dataset | None:
    if not (folder / digest).exists():
        return None
    dataset = load_dataset(digest, folder)
    os.utime(folder / digest)  # the newest dataset is the one last asked for
    return replace(dataset, reused=True)


def load_dataset(digest: str, folder: Path) -> Dataset:
    """Find a prepared dataset by its digest, or the beginning of one; every file is held against its checksum.

    Raises:
        InputError: if there is no such dataset, or more than one, or it was altered.
    """
    path = _find_folder(digest, folder)
    return _open(path, read_manifest(path))


def newest_dataset(folder: Path) -> Dataset:
    """The dataset that was prepared, or asked for again, last; raises InputError if there is none.

    Those that another version of recsys left are passed over.
    """
    found = [path for path in _folders(folder) if find_format(path) in (FORMAT, None)]
    if not found:
        raise InputError(f"no dataset is prepared in {folder}; run the entry point prepare or train first")
    return load_dataset(max(found, key=lambda path: path.stat().st_mtime).name, folder)


def _open(folder: Path, manifest: dict[str, Any]) -> Dataset:
    users, items = (pq.read_table(folder / f"{side}s.parquet") for side in SIDES)
    features = Features(_read_statistics(users), _read_statistics(items))
    return Dataset(folder, manifest, _ids(users["user_id"]), _ids(items["item_id"]), features)


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder beside the datasets for what is not whole yet; whatever is still there at the end is removed."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    partial = folder / f".partial-{secrets.token_hex(8)}"
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _publish(partial: Path, target: Path, manifest: dict[str, Any]) -> None:
    """Add the manifest, and give the folder its name: it is there whole or not at all."""
    write_manifest(partial, manifest)
    for path in (*partial.rglob("*"), partial):
        sync(path)
    try:
        partial.rename(target)
    except OSError:
        if not target.exists():
            raise
        # Another process prepared the same dataset meanwhile: its files are as good as ours.
    sync(target.parent)


def _check_disk(rows: int, folder: Path) -> None:
    needed, free = rows * (spill.BYTES_A_ROW + preparing.BYTES_A_ROW), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: preparing about {rows:,} ratings, which do not fit in memory, needs {needed / 1e9:.1f} GB of "
            f"disk there, {free / 1e9:.1f} are free; make room, or set RECSYS_DATA to a folder on a larger disk"
        )


def _read_statistics(table: pa.Table) -> Statistics:
    return Statistics(
        table["average_rating"].to_numpy(),
        table["rating_std"].to_numpy(),
        table["rating_count"].to_numpy().astype(np.float64),
    )


def _ids(column: pa.ChunkedArray) -> Ids:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _digest_source(files: Sequence[Path], preparation: Preparation) -> str:
    """Digest of the files' bytes and of every parameter that changes what is made of them."""
    made_by = preparation.model_dump(exclude={"ratings", "seed"} if preparation.split != "random" else {"ratings"})
    recipe = json.dumps({"format": FORMAT, **made_by}, sort_keys=True)
    digest = hashlib.blake2b(recipe.encode(), digest_size=16)
    digest.update(digest_files(files).encode())
    return digest.hexdigest()


def _folders(folder: Path) -> Sequence[Path]:
    return [path for path in folder.glob("[0-9a-f]*") if path.is_dir()] if folder.is_dir() else []


def _find_folder(digest: str, folder: Path) -> Path:
    found = [path for path in _folders(folder) if digest and path.name.startswith(digest)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(path.name for path in found))
        raise InputError(f"parameter 'dataset': one dataset is needed, but {digest!r} begins several: {names}")
    raise InputError(
        f"dataset {digest!r} is not in {folder}; run the entry point prepare with the ratings and parameters that made "
        f"it (same input, same parameters: same dataset)"
    )


def _remove_stale(folder: Path) -> None:
    """Remove what a killed prepare left; a day is longer than any prepare takes."""
    for path in folder.glob(".partial-*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
