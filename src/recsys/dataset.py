"""The prepared dataset: split, with features, on disk under a name that says what is in it.

A dataset is a folder named by the digest of the ratings it came from and of the parameters that made it:

    manifest.json       what made it, what was dropped, sizes, scale, checksums of this and every other file
    users.parquet       user_id and that user's features from the training rows; row k is user k
    items.parquet       likewise
    train.parquet       user, item (row numbers in the tables above), rating, timestamp where there is one
    validation.parquet
    test.parquet
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from recsys import splits
from recsys.arrays import Array, Codes, Flags, Floats, Ids
from recsys.errors import InputError
from recsys.features import Features, Statistics, learn_features
from recsys.manifest import FORMAT, digest_file, read_manifest, write_manifest
from recsys.ratings import Columns, Ratings, check_file, read_ratings
from recsys.settings import Settings

PARTS = ("train", "validation", "test")
_SIDES = {"user": "unique_items", "item": "unique_users"}
_STALE_SECONDS = 24 * 3600


class Preparation(Settings):
    """What makes a dataset of a ratings file."""

    ratings: str = Field("movielens-100k", min_length=1, description="ratings file, or movielens-100k, movielens-1m")
    user_column: str = Field("user_id", min_length=1, description="column of the user's id")
    item_column: str = Field("item_id", min_length=1, description="column of the item's id")
    rating_column: str = Field("rating", min_length=1, description="column of the rating, a number")
    timestamp_column: str = Field(
        "timestamp", min_length=1, description="column of the time, a number or a date; used where present"
    )
    separator: str = Field("auto", min_length=1, description="between columns: auto, tab, or the character(s)")
    min_rating: float | Literal["positive", "none"] = Field(
        "positive", description="lowest rating kept: a number, positive (above 0) or none (all are kept)"
    )
    split: Literal["hash", "random", "time"] = Field(
        "hash", description="how test rows are chosen: hash of the pair, random, or the newest by time"
    )
    test_size: float = Field(0.2, gt=0, lt=1, description="share of the ratings held out for the test")
    validation_size: float = Field(0.1, gt=0, lt=1, description="share held out for choosing epochs and settings")
    like_threshold: float = Field(4.0, description="a rating of at least this is a like")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of split=random and of everything random in training")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Ratings as arrays of shape (n,); users and items are row numbers of the dataset's id tables."""

    users: Codes
    items: Codes
    ratings: Floats
    timestamps: Floats | None = None

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: Array) -> "Interactions":
        times = None if self.timestamps is None else self.timestamps[rows]
        return Interactions(self.users[rows], self.items[rows], self.ratings[rows], times)

    def joined(self, other: "Interactions") -> "Interactions":
        """These rows, then the other's."""
        times = (
            None
            if self.timestamps is None or other.timestamps is None
            else np.concatenate([self.timestamps, other.timestamps])
        )
        return Interactions(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.ratings, other.ratings]),
            times,
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared dataset in memory."""

    folder: Path
    manifest: dict[str, Any]
    user_ids: Ids
    item_ids: Ids
    train: Interactions
    validation: Interactions
    test: Interactions
    features: Features
    reused: bool = False

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


def prepare(source: Path, preparation: Preparation, folder: Path) -> Dataset:
    """Read, clean and split a ratings file and keep the result in `folder`; reuse it where that was done before.

    Raises:
        InputError: if the file or a parameter cannot be used. Nothing is left behind then.
    """
    splits.check_sizes(preparation.test_size, preparation.validation_size)
    if found := find_dataset(source, preparation, folder):
        return found
    columns = Columns(
        preparation.user_column,
        preparation.item_column,
        preparation.rating_column,
        preparation.timestamp_column,
    )
    min_rating = None if preparation.min_rating == "none" else preparation.min_rating
    ratings = read_ratings(source, columns, separator=preparation.separator, min_rating=min_rating)
    _check(ratings, preparation, source)
    digest = _digest_source(source, preparation)
    dataset = _build(ratings, preparation, digest, folder / digest, source)
    _save(dataset)
    return dataset


def find_dataset(source: Path, preparation: Preparation, folder: Path) -> Dataset | None:
    """The dataset that the same ratings and parameters made before, or None; raises InputError if it was altered."""
    check_file(source)
    digest = _digest_source(source, preparation)
    if not (folder / digest).exists():
        return None
    dataset = load_dataset(digest, folder)
    os.utime(folder / digest)  # the newest dataset is the one last asked for
    return replace(dataset, reused=True)


def load_dataset(digest: str, folder: Path) -> Dataset:
    """Load a prepared dataset by its digest, or the beginning of one; every file is held against its checksum.

    Raises:
        InputError: if there is no such dataset, or more than one, or it was altered.
    """
    path = _find_folder(digest, folder)
    manifest = read_manifest(path)
    users, items = (pq.read_table(path / f"{side}s.parquet") for side in _SIDES)
    train, validation, test = (_read_part(path / f"{name}.parquet") for name in PARTS)
    features = Features(_read_statistics(users), _read_statistics(items))
    return Dataset(path, manifest, _ids(users["user_id"]), _ids(items["item_id"]), train, validation, test, features)


def newest_dataset(folder: Path) -> Dataset:
    """The dataset that was prepared, or asked for again, last; raises InputError if there is none."""
    found = _folders(folder)
    if not found:
        raise InputError(f"no dataset is prepared in {folder}; run the entry point prepare or train first")
    return load_dataset(max(found, key=lambda path: path.stat().st_mtime).name, folder)


def _check(ratings: Ratings, preparation: Preparation, source: Path) -> None:
    place = source.name
    for ids, column, kind in (
        (ratings.user_ids, preparation.user_column, "users"),
        (ratings.item_ids, preparation.item_column, "items"),
    ):
        if len(ids) < 2:
            raise InputError(
                f"{place}: column {column!r}: at least 2 {kind} are needed to compare, got only {ids[0]!r} in "
                f"{len(ratings)} ratings; pass a file with more {kind}, or name another column"
            )
    low, high = float(ratings.values.min()), float(ratings.values.max())
    if low == high:
        raise InputError(
            f"{place}: column {preparation.rating_column!r}: ratings that differ are needed, but all "
            f"{len(ratings)} are {low:g}, so there is nothing to learn and AUC is undefined; pass other ratings"
        )
    if not low < preparation.like_threshold <= high:
        kind = "every rating is" if preparation.like_threshold <= low else "no rating is"
        raise InputError(
            f"parameter 'like_threshold': above the lowest rating of {place} ({low:g}) and at most the highest "
            f"({high:g}), got {preparation.like_threshold:g}, with which {kind} a like and AUC is undefined; pass "
            f"for instance -P like_threshold={np.quantile(ratings.values, 0.6):g}"
            if np.quantile(ratings.values, 0.6) > low
            else f"parameter 'like_threshold': with {preparation.like_threshold:g} {kind} a like and AUC is "
            f"undefined; pass -P like_threshold={high:g}"
        )
    if preparation.split == "time" and ratings.timestamps is None:
        raise InputError(
            f"parameter 'split': time needs timestamps, and {place} has no column "
            f"{preparation.timestamp_column!r}; name it by -P timestamp_column=…, or pass split=hash or split=random"
        )


def _build(ratings: Ratings, preparation: Preparation, digest: str, target: Path, source: Path) -> Dataset:
    hashes = splits.hash_pairs(ratings.user_ids, ratings.item_ids, ratings.users, ratings.items)
    parts = _assign(hashes, ratings, preparation)
    rows = Interactions(ratings.users, ratings.items, ratings.values, ratings.timestamps)
    train, validation, test = (rows[np.flatnonzero(parts == part)] for part in range(3))
    for name, part in zip(PARTS, (train, validation, test), strict=True):
        if len(part) == 0:
            raise InputError(
                f"{source.name}: at least one {name} rating is needed, but split={preparation.split} with test_size="
                f"{preparation.test_size:g} and validation_size={preparation.validation_size:g} leaves none of "
                f"{len(ratings)}; pass more ratings or other sizes"
            )
    features = learn_features(train.users, train.items, train.ratings, len(ratings.user_ids), len(ratings.item_ids))
    tested = parts == splits.TEST
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "digest": digest,
        "test_digest": splits.digest_rows(hashes[tested], test.ratings, preparation.like_threshold),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": str(source),
        "preparation": preparation.model_dump(),
        "rows_read": ratings.rows_read,
        "dropped": ratings.dropped,
        "notes": list(ratings.notes),
        "ratings": len(ratings),
        "users": len(ratings.user_ids),
        "items": len(ratings.item_ids),
        "scale": [float(ratings.values.min()), float(ratings.values.max())],
        "sizes": {name: len(part) for name, part in zip(PARTS, (train, validation, test), strict=True)},
        "features": [f"{side}_{name}" for side in _SIDES for name in _feature_names(side)],
    }
    return Dataset(target, manifest, ratings.user_ids, ratings.item_ids, train, validation, test, features)


def _assign(hashes: splits.Hashes, ratings: Ratings, preparation: Preparation) -> splits.Parts:
    sizes = preparation.test_size, preparation.validation_size
    if preparation.split == "hash":
        return splits.split_by_hash(hashes, *sizes)
    if preparation.split == "time" and ratings.timestamps is not None:
        return splits.split_by_time(ratings.timestamps, *sizes)
    return splits.split_at_random(len(ratings), *sizes, preparation.seed)


def _save(dataset: Dataset) -> None:
    """Write all files beside the target, then give the folder its name: it is there whole or not at all."""
    target = dataset.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    partial = target.parent / f".partial-{secrets.token_hex(8)}"
    partial.mkdir()
    try:
        tables = {f"{side}s.parquet": _side_table(dataset, side) for side in _SIDES}
        for name in PARTS:
            tables[f"{name}.parquet"] = _part_table(getattr(dataset, name))
        for name, table in tables.items():
            pq.write_table(table, partial / name, compression="snappy", use_dictionary=["rating"])
        write_manifest(partial, dataset.manifest)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            # Another process prepared the same dataset meanwhile: its files are as good as ours.
        _sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _feature_names(side: str) -> tuple[str, ...]:
    return "average_rating", "rating_std", "rating_count", _SIDES[side]


def _side_table(dataset: Dataset, side: str) -> pa.Table:
    statistics: Statistics = getattr(dataset.features, side)
    columns = (
        statistics.average,
        statistics.std,
        statistics.count.astype(np.int64),
        statistics.unique.astype(np.int64),
    )
    ids = getattr(dataset, f"{side}_ids")
    return pa.table({f"{side}_id": pa.array(ids, pa.string()), **dict(zip(_feature_names(side), columns, strict=True))})


def _part_table(rows: Interactions) -> pa.Table:
    columns: dict[str, Array] = {"user": rows.users, "item": rows.items, "rating": rows.ratings}
    if rows.timestamps is not None:
        columns["timestamp"] = rows.timestamps
    return pa.table(columns)


def _read_part(path: Path) -> Interactions:
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
    return Interactions(table["user"].to_numpy(), table["item"].to_numpy(), table["rating"].to_numpy(), times)


def _read_statistics(table: pa.Table) -> Statistics:
    return Statistics(
        table["average_rating"].to_numpy(),
        table["rating_std"].to_numpy(),
        table["rating_count"].to_numpy().astype(np.float64),
    )


def _ids(column: pa.ChunkedArray) -> Ids:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _digest_source(source: Path, preparation: Preparation) -> str:
    """Digest of the file's bytes and of every parameter that changes what is made of them."""
    made_by = preparation.model_dump(exclude={"ratings", "seed"} if preparation.split != "random" else {"ratings"})
    recipe = json.dumps({"format": FORMAT, **made_by}, sort_keys=True)
    digest = hashlib.blake2b(recipe.encode(), digest_size=16)
    digest.update(digest_file(source).encode())
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
