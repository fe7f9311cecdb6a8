"""The layout of a dataset as a contract: what any engine that writes Parquet has to write, checked row by row.

docs/your-data.md states it. `check` reads a folder some rows at a time; what stays in memory grows with users and items
alone.
`seal` adds the manifest, by which the steps take the folder for a dataset that prepare made.
"""

import hashlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array, Floats, Ids
from recsys.data import splits
from recsys.data.buckets import Buckets, bits_for
from recsys.data.cleaning import TAKEN
from recsys.data.features import Features, Learner
from recsys.data.interactions import Interactions
from recsys.data.manifest import FORMAT, NAME, read_manifest, write_manifest
from recsys.data.parquet_store import PARTS, ROW_GROUP, SIDES, feature_names, files_of, read_blocks
from recsys.data.preparation import Preparation
from recsys.errors import InputError

_SHOWN = 3  # examples in a problem
_BUCKET = 1 << 21  # pairs looked at together
_CLOSE = {"average_rating": 1e-9, "rating_std": 1e-6}  # engines add numbers in another order
_COLUMNS = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float64()}


class Layout:
    """One folder, looked at from its small tables to its rows. `problems` has a sentence for everything found."""

    def __init__(self, folder: Path, preparation: Preparation, feedback: str) -> None:
        """Read all of it.

        Args:
            preparation: the parameters that made it, or that it was made by.
            feedback: explicit, or implicit where there are no ratings.
        """
        self.folder, self.preparation, self.implicit = folder, preparation, feedback == "implicit"
        self.problems: list[str] = []
        self.facts: dict[str, Any] = {}
        tables = {side: self._read_side(side) for side in SIDES}
        timed = self._check_parts()
        if self.problems:
            return
        ids = {side: np.asarray(table[f"{side}_id"].to_pylist(), object) for side, table in tables.items()}
        features = self._read_rows(ids["user"], ids["item"], timed)
        if features is not None:
            for side in SIDES:
                self._compare(side, tables[side], features)

    def _tell(self, place: str, problem: str) -> None:
        self.problems.append(f"{self.folder / place}: {problem}")

    def _read_side(self, side: str) -> pa.Table:
        name = f"{side}s.parquet"
        wanted = {f"{side}_id": pa.string(), "average_rating": pa.float64(), "rating_std": pa.float64()}
        wanted |= {"rating_count": pa.int64(), SIDES[side]: pa.int64()}
        try:
            table = pq.read_table(self.folder / name)
        except (OSError, pa.ArrowException) as error:
            self._tell(name, f"a Parquet file is needed ({' '.join(str(error).split())[:120]})")
            return pa.table({})
        self._check_schema(name, table.schema, wanted)
        if f"{side}_id" in table.column_names:
            ids = table[f"{side}_id"]
            if ids.null_count or len(ids.unique()) < len(ids):
                self._tell(name, f"column '{side}_id': each id once, and none missing, is needed")
        return table

    def _check_schema(self, place: str, found: pa.Schema, wanted: dict[str, pa.DataType]) -> None:
        for column, kind in wanted.items():
            if column not in found.names:
                self._tell(place, f"column {column!r} of type {kind} is needed, and is not there")
            elif found.field(column).type != kind:
                self._tell(place, f"column {column!r}: type {kind} is needed, got {found.field(column).type}")

    def _check_parts(self) -> bool:
        """The files of all parts; whether they have timestamps."""
        timed: set[bool] = set()
        for part in PARTS:
            files = files_of(self.folder / part)
            if not files:
                self._tell(part, "a folder with files part-00000.parquet and so on is needed")
            for path in files:
                place = f"{part}/{path.name}"
                try:
                    with pq.ParquetFile(path) as file:
                        schema, metadata = file.schema_arrow, file.metadata
                        largest = max(
                            (metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)), default=0
                        )
                except (OSError, pa.ArrowException) as error:
                    self._tell(place, f"a Parquet file is needed ({' '.join(str(error).split())[:120]})")
                    continue
                timed.add("timestamp" in schema.names)
                self._check_schema(place, schema, _COLUMNS | ({"timestamp": pa.float64()} if True in timed else {}))
                if largest > ROW_GROUP:
                    self._tell(place, f"row groups of at most {ROW_GROUP:,} rows are needed, got one of {largest:,}")
        if len(timed) > 1:
            self._tell("train", "all files have a column 'timestamp', or none has")
        return True in timed

    def _read_rows(self, user_ids: Ids, item_ids: Ids, timed: bool) -> Features | None:
        """Look at every row; what the training rows say of users and items, None where rows cannot be used."""
        hashes, learner, taken = (
            splits.PairHashes(user_ids, item_ids),
            Learner(len(user_ids), len(item_ids)),
            splits.PairSum(),
        )
        used = np.zeros(len(user_ids), bool), np.zeros(len(item_ids), bool)
        sizes, low, high = dict.fromkeys(PARTS, 0), np.inf, -np.inf
        rows = sum(pq.read_metadata(path).num_rows for part in PARTS for path in files_of(self.folder / part))
        with tempfile.TemporaryDirectory() as scratch:
            bits = bits_for(rows, _BUCKET)
            with (
                Buckets(Path(scratch), [("pair", "u8")], bits) as pairs,
                Buckets(Path(scratch), [("row", "u8")], bits) as tested,
            ):
                for number, part in enumerate(PARTS):
                    for block in read_blocks(self.folder / part):
                        if not self._check_rows(part, block, len(user_ids), len(item_ids)):
                            return None
                        hashed = hashes.of(block.users, block.items)
                        self._check_place(part, number, hashed)
                        taken.add(hashed)
                        keys = block.users.astype(np.uint64) * np.uint64(len(item_ids)) + block.items.astype(np.uint64)
                        pairs.add(splits.mix(keys), pair=keys)
                        used[0][block.users], used[1][block.items] = True, True
                        sizes[part] += len(block)
                        if part == "test":
                            tested.add(row := splits.mix_rows(hashed, block.ratings, block.timestamps), row=row)
                        else:
                            low, high = block.ratings.min(initial=low), block.ratings.max(initial=high)
                        if part == "train":
                            learner.add(block.users, block.items, block.ratings)
                repeated = sum(len(records) - len(np.unique(records["pair"])) for records in pairs.drain())
                test_digest = splits.digest_ascending(
                    (np.sort(records["row"]) for records in tested.drain()), self.preparation.like_threshold
                )
        if repeated:
            self._tell("", f"each pair of user and item once is needed, over all parts; {repeated:,} rows repeat one")
        for side, flags, ids in zip(SIDES, used, (user_ids, item_ids), strict=True):
            if not flags.all():
                self._tell(f"{side}s.parquet", f"{self._examples(ids[~flags])} in no row of any part")
        for part, size in sizes.items():
            if not size:
                self._tell(part, "at least one row is needed")
        self.facts = {
            "test_digest": taken.digest(test_digest) if self.implicit else test_digest,
            "ratings": sum(sizes.values()),
            "users": len(user_ids),
            "items": len(item_ids),
            "feedback": "implicit" if self.implicit else "explicit",
            "scale": [0.0, TAKEN] if self.implicit else [float(low), float(high)],
            "sizes": sizes,
        }
        return learner.features() if sizes["train"] else None

    def _check_rows(self, part: str, rows: Interactions, users: int, items: int) -> bool:
        """Whether every number of a block can be used."""
        wrong = len(self.problems)
        for name, codes, n in (("user", rows.users, users), ("item", rows.items, items)):
            # A column with nulls is read as floating point.
            if codes.dtype != np.int32 or ((codes < 0) | (codes >= n)).any():
                self._tell(
                    part, f"column {name!r}: a row number of {name}s.parquet, 0 to {n - 1:,}, is needed in every row"
                )
        for name, values in (("rating", rows.ratings), ("timestamp", rows.timestamps)):
            if values is not None and not np.isfinite(values).all():
                self._tell(part, f"column {name!r}: a finite number is needed in every row")
        if self.implicit and not (rows.ratings == TAKEN).all():
            self._tell(part, f"column 'rating': {TAKEN:g} is needed in every row of a dataset without ratings")
        return len(self.problems) == wrong

    def _check_place(self, part: str, number: int, hashed: splits.Hashes) -> None:
        if self.preparation.split != "hash":
            return
        sizes = self.preparation.test_size, self.preparation.validation_size
        astray = int((splits.split_by_hash(hashed, *sizes) != number).sum())
        if astray:
            self._tell(
                part,
                f"{astray:,} rows of a block of {len(hashed):,} belong to another part by the hash of their pair, with "
                f"test_size={sizes[0]:g} and validation_size={sizes[1]:g}",
            )

    def _compare(self, side: str, table: pa.Table, features: Features) -> None:
        """The features of a side against those of the training rows."""
        known = getattr(features, side)
        wanted: dict[str, Array] = {"average_rating": known.average, "rating_std": known.std}
        wanted |= {"rating_count": known.count, SIDES[side]: known.unique}
        ids = np.asarray(table[f"{side}_id"].to_pylist(), object)
        for column, expected in wanted.items():
            found: Floats = table[column].to_numpy().astype(np.float64)
            tolerance = _CLOSE.get(column, 0.0)
            wrong = np.flatnonzero(~np.isclose(found, expected, rtol=tolerance, atol=tolerance))
            if len(wrong):
                at = wrong[0]
                self._tell(
                    f"{side}s.parquet",
                    f"column {column!r}: {ids[at]!r} has {found[at]:g}, its training rows give {expected[at]:g}; "
                    f"{len(wrong):,} of {len(ids):,} differ",
                )

    def _examples(self, ids: Ids) -> str:
        shown = ", ".join(repr(name) for name in ids[:_SHOWN])
        return f"{len(ids):,} ids ({shown}{', …' if len(ids) > _SHOWN else ''}) occur"


def check(folder: Path) -> list[str]:
    """Everything that is wrong with a sealed dataset, a sentence each; an empty list where nothing is."""
    try:
        manifest = read_manifest(folder)
        preparation = Preparation.model_validate(manifest["preparation"])
        found = Layout(folder, preparation, str(manifest["feedback"]))
    except (InputError, KeyError, ValueError) as error:
        return [str(error)]
    said = {name: manifest.get(name) for name in found.facts}
    wrong = [
        f"{name} is {value}, the rows say {found.facts[name]}"
        for name, value in said.items()
        if value != found.facts[name]
    ]
    return [*found.problems, *(f"{folder / NAME}: {problem}" for problem in wrong)]


def seal(
    folder: Path, preparation: Preparation, *, rows_read: int | None = None, dropped: dict[str, int] | None = None
) -> str:
    """Check what an engine wrote and add its manifest; returns the dataset's digest.

    Args:
        preparation: how it was made; `ratings` says of what.
        rows_read: rows of the input, and how many of them were dropped, by reason; None: those in the parts.

    Raises:
        InputError: with the first problems, if there are any. Nothing is written then.
    """
    found = Layout(folder, preparation, "implicit" if preparation.feedback == "implicit" else "explicit")
    if found.problems:
        more = f" (and {len(found.problems) - _SHOWN} more)" if len(found.problems) > _SHOWN else ""
        raise InputError("; ".join(found.problems[:_SHOWN]) + more)
    (folder / NAME).unlink(missing_ok=True)
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name.startswith(("_", "."))]:
        path.unlink()  # the engine's own notes, such as _SUCCESS and checksums
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "digest": "",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": preparation.ratings,
        "preparation": preparation.recorded(),
        "rows_read": rows_read or found.facts["ratings"],
        "dropped": {"missing_value": 0, "below_min_rating": 0, "repeated_pair": 0} | (dropped or {}),
        "notes": [],
        **found.facts,
        "features": [f"{side}_{name}" for side in SIDES for name in feature_names(side)],
    }
    write_manifest(folder, manifest)  # for the checksums of the files, which name the dataset
    made_by = {name: value for name, value in preparation.recorded().items() if name != "ratings"}
    contents = [manifest["files"][name] for name in sorted(manifest["files"])]  # engines name files at random
    recipe = json.dumps({"format": FORMAT, "files": contents, **made_by}, sort_keys=True)
    (folder / NAME).unlink()
    del manifest["files"], manifest["checksum"]
    manifest["digest"] = hashlib.blake2b(recipe.encode(), digest_size=16).hexdigest()
    write_manifest(folder, manifest)
    return str(manifest["digest"])
