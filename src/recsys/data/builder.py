"""From cleaned ratings to a dataset's files: who is learnt from, who tests, and what is known of users and items.

Ratings come some at a time, and every number is gathered in their order. So the files are the same, byte for byte,
however the ratings are cut and wherever they are kept.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Floats
from recsys.data import checks, splits
from recsys.data.buckets import Buckets, bits_for
from recsys.data.cleaning import TAKEN, Block
from recsys.data.dataset import Dataset, digest_source, find_prepared, open_prepared
from recsys.data.features import Features, Learner, Statistics
from recsys.data.interactions import Interactions
from recsys.data.manifest import FORMAT, write_manifest
from recsys.data.parquet_store import PARTS, SIDES, PartWriter, feature_names
from recsys.data.preparation import Preparation
from recsys.data.ratings import BYTES_A_ROW as SCRATCH_A_ROW
from recsys.data.ratings import Ratings, read_ratings
from recsys.data.readers.files import estimate_rows, find_files
from recsys.data.readers.source import ColumnNames, WeightedNames
from recsys.errors import InputError
from recsys.runtime import memory
from recsys.runtime.files import publish

BYTES_A_ROW = 24
"""On disk, at most: what is written of a rating."""

_BUCKET = 1 << 22  # test rows sorted at a time


def build(
    ratings: Ratings, preparation: Preparation, folder: Path, source: Path, scratch: Path | None = None
) -> dict[str, Any]:
    """Write a dataset's tables into a folder; returns what the manifest says of them.

    Args:
        source: the input, for messages.
        scratch: a folder on disk for the hashes of the test rows; None: they are held in memory.

    Raises:
        InputError: if these ratings and parameters make no dataset.
    """
    implicit = checks.check(ratings, preparation, source)
    usual = _usual(ratings) if preparation.weighted else 1.0
    assign = _assign(ratings, preparation)
    hashes = splits.PairHashes(ratings.users.ids, ratings.items.ids)
    learner = Learner(len(ratings.users), len(ratings.items))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))  # Parquet is written beside the work of this thread
        writers = [stack.enter_context(PartWriter(folder / name, pool)) for name in PARTS]
        bits = bits_for(round(len(ratings) * preparation.test_size), _BUCKET)
        tested = stack.enter_context(Buckets(scratch, [("row", "u8")], bits))
        low, high = np.inf, -np.inf  # of the rows learnt from: models must not know how the test rows are rated
        taken = splits.PairSum()
        for block in ratings.blocks():
            values = block.values
            if implicit:
                values = _weights(block.values, usual) if preparation.weighted else np.full(len(block), TAKEN)
            rows = Interactions(block.users, block.items, values, block.timestamps)
            hashed = hashes.of(block.users, block.items)
            taken.add(hashed)
            parts = assign(block, hashed)
            for part, writer in enumerate(writers):
                chosen = np.flatnonzero(parts == part)
                some = rows[chosen]
                if part == splits.TEST and implicit:  # so that test sets compare, whether pairs are weighted or not
                    some = replace(some, ratings=np.full(len(some), TAKEN))
                writer.add(some)
                if part == splits.TEST:
                    tested.add(row := splits.mix_rows(hashed[chosen], some.ratings, some.timestamps), row=row)
                else:
                    low, high = some.ratings.min(initial=low), some.ratings.max(initial=high)
                if part == splits.TRAIN:
                    learner.add(some.users, some.items, some.ratings)
        sizes = {name: writer.rows for name, writer in zip(PARTS, writers, strict=True)}
        checks.check_parts(sizes, preparation, source)
        if low == high and not implicit:
            raise checks.alike(low, preparation, source)
        for writer in writers:
            writer.finish()
        test_digest = splits.digest_ascending(
            (np.sort(records["row"]) for records in tested.drain()), preparation.like_threshold
        )
        if implicit:
            test_digest = taken.digest(test_digest)
    _write_sides(ratings, learner.features(), folder)
    return {
        "test_digest": test_digest,
        "ratings": len(ratings),
        "users": len(ratings.users),
        "items": len(ratings.items),
        "feedback": "implicit" if implicit else "explicit",
        "scale": [0.0, TAKEN] if implicit else [float(low), float(high)],
        "sizes": sizes,
        "features": [f"{side}_{name}" for side in SIDES for name in feature_names(side)],
    }


def _usual(ratings: Ratings) -> float:
    """The median of what pairs are worth: weights are relative to it, so that their unit does not matter."""
    (median,) = splits.find_ranked(lambda: (block.values for block in ratings.blocks()), [len(ratings) // 2])
    return median


def _weights(values: Floats, usual: float) -> Floats:
    """What a pair counts, (n,): 1 up to what is usual, and more by the logarithm of how much more it is."""
    return np.asarray(TAKEN + np.log(np.maximum(values / usual, 1.0)), np.float64)


def _assign(ratings: Ratings, preparation: Preparation) -> Callable[[Block, splits.Hashes], splits.Parts]:
    """What gives every row of a block its part; to be asked once for every block, in order."""
    sizes = preparation.test_size, preparation.validation_size
    if preparation.split == "hash":
        return lambda block, hashes: splits.split_by_hash(hashes, *sizes)
    if preparation.split == "time":

        def moments() -> Iterator[Floats]:
            return (block.timestamps for block in ratings.blocks() if block.timestamps is not None)

        from_moments = splits.find_moments(moments, len(ratings), *sizes)
        return lambda block, hashes: splits.split_by_moments(_known(block.timestamps), *from_moments)
    parts = splits.split_at_random(len(ratings), *sizes, preparation.seed)
    done = 0

    def take(block: Block, hashes: splits.Hashes) -> splits.Parts:
        nonlocal done
        done += len(block)
        return parts[done - len(block) : done]

    return take


def _known(timestamps: Floats | None) -> Floats:
    assert timestamps is not None
    return timestamps


def _write_sides(ratings: Ratings, features: Features, folder: Path) -> None:
    for side, ids in (("user", ratings.users.ids), ("item", ratings.items.ids)):
        statistics: Statistics = getattr(features, side)
        columns = (
            statistics.average,
            statistics.std,
            statistics.count.astype(np.int64),
            statistics.unique.astype(np.int64),
        )
        table = pa.table(
            {f"{side}_id": pa.array(ids, pa.string()), **dict(zip(feature_names(side), columns, strict=True))}
        )
        pq.write_table(table, folder / f"{side}s.parquet", compression="snappy", use_dictionary=False)


_STALE_SECONDS = 24 * 3600


_MEMORY_A_ROW = 100  # bytes at the most, measured, where all of them are held in memory


def prepare(
    source: Path,
    preparation: Preparation,
    folder: Path,
    *,
    gigabytes: float | None = None,
    check: Callable[[Dataset], None] | None = None,
) -> Dataset:
    """Read, clean and split ratings and keep the result in `folder`; reuse it where that was done before.

    Args:
        source: a file, a folder of files or a pattern.
        gigabytes: memory to use, in 10^9 bytes; rows that need more are kept on disk meanwhile, with the same result.
            None: half of what is available.
        check: is shown a new dataset before it is kept; if it raises, the dataset is not.

    Raises:
        InputError: if the input or a parameter cannot be used. Nothing is left behind then.
    """
    splits.check_sizes(preparation.test_size, preparation.validation_size)
    files = find_files(source)
    digest = digest_source(files, preparation)
    if found := find_prepared(digest, folder):
        return found
    columns = column_names(preparation)
    lowest = None if preparation.min_rating == "none" else preparation.min_rating
    rows = estimate_rows(files)
    allowed = memory.available() / 2 if gigabytes is None else gigabytes * 1e9
    with _partial(folder) as partial:
        scratch = None
        if rows * _MEMORY_A_ROW > allowed:
            _check_disk(rows, folder)
            scratch = partial
        with read_ratings(
            source,
            columns,
            separator=preparation.separator,
            encoding=preparation.encoding,
            decimal=preparation.decimal,
            min_rating=lowest,
            scratch=scratch,
            summed=preparation.weighted,
        ) as ratings:
            content = build(ratings, preparation, partial, source, scratch)
            notes = [*ratings.notes, *checks.notes(ratings, content["feedback"], preparation)]
        if digest_source(find_files(source), preparation) != digest:
            raise InputError(f"{source}: changed while it was read; run prepare again when nothing writes to it")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "digest": digest,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": str(source),
            "preparation": preparation.recorded(),
            "rows_read": ratings.rows_read,
            "dropped": ratings.dropped,
            "notes": notes,
            **content,
        }
        if check is not None:
            check(open_prepared(partial, manifest))
        _publish(partial, folder / digest, manifest)
    return open_prepared(folder / digest, manifest)


def column_names(preparation: Preparation) -> ColumnNames:
    """The columns to read; a weight that a column has is read in the place of ratings."""
    users, items, moments = preparation.user_column, preparation.item_column, preparation.timestamp_column
    if preparation.weighted and preparation.feedback != "explicit":
        if preparation.weight != "repeats":
            return WeightedNames(users, items, preparation.weight, moments)
        return ColumnNames(users, items, None, moments)
    return ColumnNames(users, items, None if preparation.feedback == "implicit" else preparation.rating_column, moments)


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
    try:
        publish(partial, target)
    except OSError:
        if not target.exists():
            raise
        # Another process prepared the same dataset meanwhile: its files are as good as ours.


def _check_disk(rows: int, folder: Path) -> None:
    needed, free = rows * (SCRATCH_A_ROW + BYTES_A_ROW), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: preparing about {rows:,} ratings, which do not fit in memory, needs {needed / 1e9:.1f} GB of "
            f"disk there, {free / 1e9:.1f} are free; make room, or set RECSYS_DATA to a folder on a larger disk"
        )


def _remove_stale(folder: Path) -> None:
    """Remove what a killed prepare, or copy from an object store, left; a day is longer than any takes."""
    for path in (*folder.glob(".partial-*"), *folder.glob(".*.partial")):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
