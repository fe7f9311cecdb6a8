"""From cleaned ratings to a dataset's files: who is learnt from, who tests, and what is known of users and items.

Ratings come some at a time, from memory or from disk, and every number is gathered in their order. So both give the
same files, byte for byte.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from recsys import splits
from recsys.arrays import Floats, Ids
from recsys.buckets import Buckets, bits_for
from recsys.cleaning import Block
from recsys.errors import InputError
from recsys.features import Features, Learner, Statistics
from recsys.parts import PARTS, Interactions, PartWriter
from recsys.settings import Settings

BYTES_A_ROW = 24
"""On disk, at most: what is written of a rating."""

SIDES = {"user": "unique_items", "item": "unique_users"}

_BUCKET = 1 << 22  # test rows sorted at a time, where they come from disk


class Preparation(Settings):
    """What makes a dataset of a ratings file."""

    ratings: str = Field(
        "movielens-100k", min_length=1, description="ratings: file, folder or pattern; or movielens-100k, movielens-1m"
    )
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


class Cleaned(Protocol):
    """Cleaned ratings, in memory or on disk: `Ratings` or `SpilledRatings`."""

    @property
    def user_ids(self) -> Ids:
        """In codepoint order, each used by a row."""

    @property
    def item_ids(self) -> Ids:
        """Likewise."""

    @property
    def timed(self) -> bool:
        """Whether every rating has a timestamp; else none has."""

    @property
    def rows_read(self) -> int:
        """Rows of the input."""

    @property
    def dropped(self) -> dict[str, int]:
        """Of those, how many were dropped for which reason."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence each, for the user."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[Block]:
        """The ratings in the input's order, some at a time; may be asked for again."""


def build(
    ratings: Cleaned, preparation: Preparation, folder: Path, source: Path, scratch: Path | None = None
) -> dict[str, Any]:
    """Write a dataset's tables into a folder; returns what the manifest says of them.

    Args:
        source: the input, for messages.
        scratch: a folder for what is not to be held in memory; None: there is memory enough.

    Raises:
        InputError: if these ratings and parameters make no dataset.
    """
    scale = _check(ratings, preparation, source)
    assign = _assign(ratings, preparation)
    hashes = splits.PairHashes(ratings.user_ids, ratings.item_ids)
    learner = Learner(len(ratings.user_ids), len(ratings.item_ids))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))  # Parquet is written beside the work of this thread
        writers = [stack.enter_context(PartWriter(folder / name, pool)) for name in PARTS]
        tested = stack.enter_context(_Tested(scratch, round(len(ratings) * preparation.test_size)))
        for block in ratings.blocks():
            rows = Interactions(block.users, block.items, block.values, block.timestamps)
            hashed = hashes.of(block.users, block.items)
            parts = assign(block, hashed)
            for part, writer in enumerate(writers):
                chosen = np.flatnonzero(parts == part)
                writer.add(some := rows[chosen])
                if part == splits.TRAIN:
                    learner.add(some.users, some.items, some.ratings)
                elif part == splits.TEST:
                    tested.add(splits.mix_ratings(hashed[chosen], some.ratings))
        sizes = {name: writer.rows for name, writer in zip(PARTS, writers, strict=True)}
        for name, size in sizes.items():
            if size == 0:
                raise InputError(
                    f"{source.name}: at least one {name} rating is needed, but split={preparation.split} with "
                    f"test_size={preparation.test_size:g} and validation_size={preparation.validation_size:g} leaves "
                    f"none of {len(ratings)}; pass more ratings or other sizes"
                )
        for writer in writers:
            writer.finish()
        test_digest = splits.digest_ascending(tested.ascending(), preparation.like_threshold)
    _write_sides(ratings, learner.features(), folder)
    return {
        "test_digest": test_digest,
        "ratings": len(ratings),
        "users": len(ratings.user_ids),
        "items": len(ratings.item_ids),
        "scale": list(scale),
        "sizes": sizes,
        "features": [f"{side}_{name}" for side in SIDES for name in feature_names(side)],
    }


def feature_names(side: str) -> tuple[str, ...]:
    """The columns of a side's table beside its ids."""
    return "average_rating", "rating_std", "rating_count", SIDES[side]


class _Tested:
    """The hashes of the test rows, sorted in memory, or by buckets on disk."""

    def __init__(self, scratch: Path | None, rows: int) -> None:
        self._held: list[splits.Hashes] = []
        self._buckets = None
        if scratch is not None:
            self._buckets = Buckets(scratch / "tested", [("row", "u8")], bits_for(rows, _BUCKET))

    def __enter__(self) -> "_Tested":
        return self

    def __exit__(self, *_: object) -> None:
        if self._buckets:
            self._buckets.close()

    def add(self, rows: splits.Hashes) -> None:
        if self._buckets:
            self._buckets.add(rows, row=rows)
        else:
            self._held.append(rows)

    def ascending(self) -> Iterable[splits.Hashes]:
        drained = (
            (records["row"] for records in self._buckets.drain()) if self._buckets else [np.concatenate(self._held)]
        )
        return (np.sort(rows) for rows in drained)


def _check(ratings: Cleaned, preparation: Preparation, source: Path) -> tuple[float, float]:
    """Refuse ratings of which no dataset can be made; returns the lowest and the highest."""
    place = source.name
    low, high = np.inf, -np.inf
    for block in ratings.blocks():
        low, high = min(low, float(block.values.min())), max(high, float(block.values.max()))
    for ids, column, kind in (
        (ratings.user_ids, preparation.user_column, "users"),
        (ratings.item_ids, preparation.item_column, "items"),
    ):
        if len(ids) < 2:
            raise InputError(
                f"{place}: column {column!r}: at least 2 {kind} are needed to compare, got only {ids[0]!r} in "
                f"{len(ratings)} ratings; pass a file with more {kind}, or name another column"
            )
    if low == high:
        raise InputError(
            f"{place}: column {preparation.rating_column!r}: ratings that differ are needed, but all "
            f"{len(ratings)} are {low:g}, so there is nothing to learn and AUC is undefined; pass other ratings"
        )
    if not low < preparation.like_threshold <= high:
        kind = "every rating is" if preparation.like_threshold <= low else "no rating is"
        (proposed,) = splits.find_ranked(
            lambda: (block.values for block in ratings.blocks()), [int(0.6 * len(ratings))]
        )
        raise InputError(
            f"parameter 'like_threshold': above the lowest rating of {place} ({low:g}) and at most the highest "
            f"({high:g}), got {preparation.like_threshold:g}, with which {kind} a like and AUC is undefined; pass "
            f"for instance -P like_threshold={proposed:g}"
            if proposed > low
            else f"parameter 'like_threshold': with {preparation.like_threshold:g} {kind} a like and AUC is "
            f"undefined; pass -P like_threshold={high:g}"
        )
    if preparation.split == "time" and not ratings.timed:
        raise InputError(
            f"parameter 'split': time needs timestamps, and {place} has no column "
            f"{preparation.timestamp_column!r}; name it by -P timestamp_column=…, or pass split=hash or split=random"
        )
    return low, high


def _assign(ratings: Cleaned, preparation: Preparation) -> Callable[[Block, splits.Hashes], splits.Parts]:
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


def _write_sides(ratings: Cleaned, features: Features, folder: Path) -> None:
    for side, ids in (("user", ratings.user_ids), ("item", ratings.item_ids)):
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
