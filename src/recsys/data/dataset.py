"""The prepared dataset: split, with features, on disk under a name that says what is in it.

A dataset is a folder named by the digest of the ratings it came from and of the parameters that made it:

    manifest.json       what made it, what was dropped, sizes, scale, feedback (explicit, or implicit where there are no
                        ratings), checksums of this and every other file
    users.parquet       user_id and that user's features from the training rows; row k is user k
    items.parquet       likewise
    train/              part-00000.parquet and so on, of FILE_ROWS rows each: user, item (row numbers in the tables
    validation/         above), rating, timestamp where there is one, in row groups of ROW_GROUP rows
    test/
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Flags, Ids
from recsys.data.cleaning import TAKEN
from recsys.data.features import Features, Statistics
from recsys.data.interactions import Interactions
from recsys.data.manifest import FORMAT, find_format, read_manifest
from recsys.data.parquet_store import ROW_GROUP, SIDES, read_blocks, read_part
from recsys.data.preparation import Preparation
from recsys.data.readers.files import digest_files
from recsys.errors import InputError
from recsys.runtime import memory

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
        """The lowest and the highest rating of the rows to learn from: training and validation."""
        low, high = self.manifest["scale"]
        return float(low), float(high)

    @property
    def implicit(self) -> bool:
        """Whether it says only who took what: then every rating is 1, and a like, on a scale from 0, not taken."""
        return bool(self.manifest.get("feedback") == "implicit")  # older datasets do not say, and have ratings

    @property
    def like_threshold(self) -> float:
        """A rating of at least this is a like."""
        if self.implicit:
            return TAKEN
        return float(self.manifest["preparation"]["like_threshold"])

    @property
    def preparation(self) -> Preparation:
        """The parameters that made it."""
        return Preparation.model_validate(self.manifest["preparation"])

    def likes(self, rows: Interactions) -> Flags:
        """Whether each row is a like: shape (n,)."""
        return rows.ratings >= self.like_threshold


def find_prepared(digest: str, folder: Path) -> Dataset | None:
    """The dataset of this digest, now the newest, or None; raises InputError if it was altered."""
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
    return open_prepared(path, read_manifest(path))


def newest_dataset(folder: Path, among: Collection[str] | None = None) -> Dataset:
    """The dataset that was prepared, or asked for again, last; raises InputError if there is none.

    Those that another version of recsys left are passed over.

    Args:
        among: the digests of those that may be taken; None: all.
    """
    found = [path for path in _folders(folder) if find_format(path) in (FORMAT, None)]
    if among is not None:
        found = [path for path in found if path.name in among]
        if not found:
            raise InputError(
                f"none of the datasets that the versions learnt from ({', '.join(sorted(among)) or 'none on record'}) "
                f"is in {folder}; run the entry point prepare with their ratings and parameters, or pass -P dataset="
                "<digest> to decide by another"
            )
    if not found:
        raise InputError(f"no dataset is prepared in {folder}; run the entry point prepare or train first")
    return load_dataset(max(found, key=lambda path: path.stat().st_mtime).name, folder)


def open_prepared(folder: Path, manifest: dict[str, Any]) -> Dataset:
    """The dataset in a folder whose manifest is known to be right."""
    users, items = (pq.read_table(folder / f"{side}s.parquet") for side in SIDES)
    features = Features(_read_statistics(users), _read_statistics(items))
    return Dataset(folder, manifest, _ids(users["user_id"]), _ids(items["item_id"]), features)


def _read_statistics(table: pa.Table) -> Statistics:
    return Statistics(
        table["average_rating"].to_numpy(),
        table["rating_std"].to_numpy(),
        table["rating_count"].to_numpy().astype(np.float64),
    )


def _ids(column: pa.ChunkedArray) -> Ids:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def digest_source(files: Sequence[Path], preparation: Preparation) -> str:
    """Digest of the files' bytes and of every parameter that changes what is made of them."""
    left_out = {"ratings", "seed"} if preparation.split != "random" else {"ratings"}
    made_by = {name: value for name, value in preparation.recorded().items() if name not in left_out}
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
