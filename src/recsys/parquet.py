"""Ratings files in the Parquet format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.columns import Columns, RawColumns, find_or_raise_positions, shorten
from recsys.errors import InputError

MAGIC = b"PAR1"
SUFFIXES = (".parquet", ".pq")


def read_columns(path: Path, columns: Columns) -> RawColumns:
    """The needed columns of a Parquet file; integers and integral floats become text ids."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            at = find_or_raise_positions(str(path), [name.strip() for name in names], columns)
            table = file.read(columns=[names[position] for position in at.values()])
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: not a readable Parquet file ({shorten(error)}); write or copy the file again"
        ) from error
    if table.num_rows == 0:
        raise InputError(f"{path}: the file has columns but no rows; give a file with ratings")

    def place(row: int) -> str:
        return f"{path}: row {row + 1}"

    def column(parameter: str) -> pa.ChunkedArray:
        values = table.column(names[at[parameter]])
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        return values

    def refuse(parameter: str, expected: str, kind: pa.DataType) -> InputError:
        name = getattr(columns, parameter)
        return InputError(
            f"{path}: column {name!r}: expected {expected}, got values of type {kind}; "
            f"convert the column, or name another with -P {parameter}_column=<column>"
        )

    def ids(parameter: str) -> pa.DictionaryArray:
        values = column(parameter)
        kind = values.type
        if pa.types.is_floating(kind):
            values = _integral(values, getattr(columns, parameter), place)
        elif not (
            _is_text(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_null(kind)
            or (pa.types.is_decimal(kind) and kind.scale == 0)
        ):
            raise refuse(parameter, "text or integers", kind)
        return _encode(path, values)

    def numbers(parameter: str, expected: str) -> pa.Array:
        values = column(parameter)
        kind = values.type
        if _is_text(kind):
            return _encode(path, values)
        if parameter == "timestamp" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            microseconds = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
            values = pc.divide(microseconds.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
        elif pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            values = values.cast(pa.float64(), safe=False)
        elif not (pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise refuse(parameter, expected, kind)
        return values.cast(pa.float64()).combine_chunks()

    return RawColumns(
        users=ids("user"),
        items=ids("item"),
        ratings=numbers("rating", "numbers"),
        timestamps=numbers("timestamp", "numbers or dates") if "timestamp" in at else None,
        place=place,
    )


def _is_text(kind: pa.DataType) -> bool:
    # Some writers leave text unmarked, and it comes back as bytes.
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _integral(values: pa.ChunkedArray, name: str, place: Callable[[int], str]) -> pa.ChunkedArray:
    """Float ids, which is what pandas makes of integers with gaps, as integers; NaN as null."""
    floats = values.to_numpy()
    missing = np.isnan(floats)
    # From 2**53 on, neighbouring integers share one float: such ids have already lost digits.
    bad = ~missing & ((floats != np.trunc(floats)) | (np.abs(floats) >= 2**53))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{place(row)}: column {name!r}: expected text or an integer below 2**53, got {floats[row]!s}; "
            "store the ids as text or integers"
        )
    return pa.chunked_array([pa.array(np.where(missing, 0, floats).astype(np.int64), mask=missing)])


def _encode(path: Path, values: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = values.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    try:
        return pa.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary.cast(pa.string()))
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: a text column is not UTF-8; write it as UTF-8 text") from error
