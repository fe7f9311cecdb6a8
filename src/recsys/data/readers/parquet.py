"""Ratings files in the Parquet format."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data.readers.source import ColumnNames, RawBlock, Source, find_or_raise_positions, seconds, shorten
from recsys.errors import InputError

MAGIC = b"PAR1"
SUFFIXES = (".parquet", ".pq")

_BLOCK = 1 << 20  # rows
_BUFFER = 1 << 20  # bytes


def open_file(path: Path, columns: ColumnNames) -> Source:
    """Look at a Parquet file; its integers and integral floats become text ids."""
    with _errors(path), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        at = find_or_raise_positions(str(path), [name.strip() for name in names], columns)
    wanted = {parameter: names[position] for parameter, position in at.items()}

    def blocks() -> Iterator[RawBlock]:
        row = 0
        # Buffered, or a file that is one large row group would be read at once.
        with _errors(path), pq.ParquetFile(path, buffer_size=_BUFFER) as file:
            for batch in file.iter_batches(_BLOCK, columns=list(wanted.values())):
                yield _raw_block(path, columns, wanted, pa.Table.from_batches([batch]), row)
                row += batch.num_rows

    return Source(path, tuple(at), True, blocks)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: not a readable Parquet file ({shorten(error)}); write or copy the file again"
        ) from error


def _raw_block(path: Path, columns: ColumnNames, wanted: dict[str, str], table: pa.Table, start: int) -> RawBlock:
    """Some rows, of which the first is the file's row `start`."""

    def place(row: int) -> str:
        return f"{path}: row {start + row + 1}"

    def column(parameter: str) -> pa.ChunkedArray:
        values = table.column(wanted[parameter])
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
        found = _encode(path, values)
        if pc.any(broken := pc.match_substring(found.dictionary, "\0")).as_py():
            row = pc.index(broken.take(found.indices), True).as_py()
            raise InputError(f"{place(row)}: the {parameter} id holds a NUL byte; remove it")
        return found

    def is_date(kind: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))

    def numbers(parameter: str, expected: str) -> pa.Array:
        values = column(parameter)
        kind = values.type
        if _is_text(kind):
            return _encode(path, values)
        if parameter == "timestamp" and is_date(kind):
            microseconds = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
            values = seconds(microseconds)
        elif pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            values = values.cast(pa.float64(), safe=False)
        elif not (pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise refuse(parameter, expected, kind)
        return values.cast(pa.float64()).combine_chunks()

    timed = "timestamp" in wanted
    return RawBlock(
        users=ids("user"),
        items=ids("item"),
        ratings=numbers("rating", "numbers"),
        timestamps=numbers("timestamp", "numbers or dates") if timed else None,
        place=place,
        dated=timed and is_date(column("timestamp").type),
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
