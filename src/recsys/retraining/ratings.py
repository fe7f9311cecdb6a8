"""The file that a retraining prepares: a champion's ratings as they stand now, and feedback behind them.

Its columns have the default names. Beside them it says of every row where it is from, and of feedback which list it
answers; `prepare` reads none of these. Where takes are weighed, the column `weight` says what each counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array, Floats
from recsys.data.builder import column_names
from recsys.data.preparation import Preparation
from recsys.data.ratings import BYTES_A_ROW, Ratings, read_ratings
from recsys.data.readers.files import digest_files, estimate_rows, find_files
from recsys.data.readers.source import ColumnNames
from recsys.errors import InputError
from recsys.retraining.feedback import GivenRatings
from recsys.runtime import memory
from recsys.runtime.files import write_atomically

_UNITS = (1e17, 1e9), (1e14, 1e6), (1e11, 1e3)  # a time above the first is in nano-, micro- or milliseconds
WEIGHT = "weight"  # what a take counts
_FROM_LISTS = ("request", "version", "arm", "policy")


@dataclass(frozen=True)
class Source:
    """The ratings that a champion learnt from, as they stand now."""

    rows: int  # about
    digest: str


def look_at(source: Path) -> Source:
    """How many ratings a file, folder or pattern has, and the digest of its bytes; raises InputError."""
    files = find_files(source)
    return Source(estimate_rows(files), digest_files(files))


def write_ratings(
    path: Path,
    source: Path,
    preparation: Preparation,
    given: GivenRatings,
    *,
    implicit: bool,
    clip: float | None = None,
    scale: tuple[float, float] | None = None,
) -> Preparation:
    """Write the ratings of a source and the feedback behind them as Parquet; how to prepare that file.

    Ids, cleaning and times are those of `prepare`. Of a rating and feedback on the same item the newer will count.

    Args:
        path: .parquet; its folder is made.
        preparation: by which the source is read.
        implicit: there are no ratings, only takes.
        clip: without ratings, takes of feedback count by one over the propensity of what was shown, at most so much,
            as the weights of `prepare` count; a pair that is in both counts by the sum. None: a take is a take.
        scale: of what the champion learnt from, about which the source's has to be. None: any.

    Raises:
        InputError: if the source cannot be read, or its ratings are on another scale.
    """
    weighted = preparation.weighted or clip is not None
    columns = column_names(preparation)
    lowest = None if preparation.min_rating == "none" else preparation.min_rating
    path.parent.mkdir(parents=True, exist_ok=True)
    large = estimate_rows(find_files(source)) * BYTES_A_ROW > memory.available() / 2
    scratch = path.parent if large else None
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
        if scale is not None:
            _check_scale(source, ratings, scale)
        schema = _schema(timed=ratings.timed, implicit=implicit, weighted=weighted)
        unit = _unit(ratings) if ratings.timed else 1.0
        with write_atomically(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for columns_of in chain(_base(ratings, preparation), [_feedback(given, unit, clip)]):
                arrays = [columns_of(field) for field in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    changes: dict[str, Any] = {f"{name}_column": getattr(ColumnNames(), name) for name in ("user", "item", "rating")}
    changes |= {"timestamp_column": ColumnNames().timestamp, "separator": "auto", "ratings": str(path)}
    changes |= {"encoding": "auto", "decimal": "auto"}
    changes |= {"feedback": "implicit" if implicit else preparation.feedback, "weight": WEIGHT if weighted else "none"}
    return preparation.model_copy(update=changes)


def _check_scale(source: Path, ratings: Ratings, scale: tuple[float, float]) -> None:
    """Refuse ratings with another top that share no more than half of the range of both: 5 may be the best or not."""
    low, high = ratings.scale()
    range_of_both = max(high, scale[1]) - min(low, scale[0])
    if high != scale[1] and min(high, scale[1]) - max(low, scale[0]) <= range_of_both / 2:
        raise InputError(
            f"{source}: ratings are from {low:g} to {high:g}, and those that the champion learnt from were from "
            f"{scale[0]:g} to {scale[1]:g}: neither its like threshold nor the feedback given since fits both. If that "
            "is another scale, run the entry points train, with a like_threshold of it, and promote; then retrain with "
            "-P since= the moment from which on feedback is on it"
        )


def _schema(*, timed: bool, implicit: bool, weighted: bool) -> pa.Schema:
    fields = [("user_id", pa.string()), ("item_id", pa.string())]
    fields += [] if implicit else [("rating", pa.float64())]
    fields += [(WEIGHT, pa.float64())] if weighted else []
    fields += [("timestamp", pa.float64())] if timed else []
    fields += [("origin", pa.string()), *((name, pa.string()) for name in _FROM_LISTS)]
    return pa.schema([*fields, ("position", pa.int32()), ("propensity", pa.float64())])


def _base(ratings: Ratings, preparation: Preparation) -> Iterator[Any]:
    for block in ratings.blocks():
        found = {
            "user_id": ratings.users.ids[block.users],
            "item_id": ratings.items.ids[block.items],
            "rating": block.values,
            WEIGHT: block.values if preparation.weighted else np.ones(len(block)),
            "timestamp": block.timestamps,
            "origin": np.full(len(block), "ratings", object),
        }
        yield _filler(found, len(block))


def _feedback(given: GivenRatings, unit: float, clip: float | None) -> Any:
    named = given.requests != ""
    found: dict[str, Array] = {
        "user_id": given.users,
        "item_id": given.items,
        "rating": given.ratings,
        WEIGHT: np.ones(len(given)) if clip is None else inverse_propensities(given.propensities, clip),
        "timestamp": given.moments * unit,
        "origin": np.full(len(given), "feedback", object),
    }
    for name, column in zip(_FROM_LISTS, (given.requests, given.versions, given.arms, given.policies), strict=True):
        found[name] = _where(named, column)
    found["position"] = _where(named, given.positions)
    found["propensity"] = _where(~np.isnan(given.propensities), given.propensities)
    return _filler(found, len(given))


def inverse_propensities(propensities: Floats, clip: float) -> Floats:
    """What an event counts that answers an item shown with some probability, (n,): min(1 / p, clip); NaN: 1.

    Inverse propensity scoring (Schnabel, Swaminathan, Singh, Chandak and Joachims, ICML 2016): what was seldom shown
    stands for what was not. The clip bounds the variance (Ionides 2008).
    """
    known = ~np.isnan(propensities)
    counts = np.ones(len(propensities))
    counts[known] = 1 / np.maximum(propensities[known], 1 / clip)
    return counts


def _where(known: Array, values: Array) -> Array:
    """The values as objects, None where they are not known."""
    found = values.astype(object)
    found[~known] = None
    return found


def _filler(found: dict[str, Any], rows: int) -> Any:
    """Gives the column of a field of the schema, nulls where there is none."""

    def column(field: pa.Field) -> pa.Array:
        values = found.get(field.name)
        return pa.nulls(rows, field.type) if values is None else pa.array(values, field.type)

    return column


def _unit(ratings: Ratings) -> float:
    """By what seconds are multiplied to be times as the source has them."""
    newest = 0.0
    for block in ratings.blocks():
        times: Floats | None = block.timestamps
        if times is not None and len(times):
            newest = max(newest, float(np.nanmax(times)))
    return next((unit for least, unit in _UNITS if newest > least), 1.0)
