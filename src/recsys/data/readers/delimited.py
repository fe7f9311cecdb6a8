"""Ratings files of delimited text: CSV and its relatives, plain or gzipped."""

import codecs
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recsys.data.readers.dialect import UNIT, Layout, csv_reader, decoded, delimiter, find_layout, open_bytes
from recsys.data.readers.source import Columns, RawColumns, Source, shorten
from recsys.errors import InputError

MISSING_NUMBERS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")

_TEXT = pa.dictionary(pa.int32(), pa.string())
# Larger than Arrow's own 1 MiB: every block brings dictionaries of its own, to be unified.
_BLOCK = 1 << 22
_STREAMED_BLOCK = 1 << 24  # its dictionaries are looked up one by one, so there are to be few
_LARGEST_BLOCK = 1 << 28  # no line may be longer than a block


def open_file(path: Path, columns: Columns, separator: str) -> Source:
    """Look at a text file; its rows have ratings and timestamps as text where not all are plain numbers."""
    with _gzip_errors(path):
        layout = find_layout(path, columns, separator)
    return Source(
        path,
        tuple(layout.at),
        layout.headed,
        lambda: _read_columns(path, layout),
        lambda: _stream_columns(path, layout),
        layout.notes,
    )


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file ({shorten(error)}); copy or compress it again") from error


# From the fastest way to the most lenient; mistakes fail all of them.
def _ways(block: int) -> tuple[tuple[pa.DataType, pa.DataType, int], ...]:
    return (
        (pa.float64(), pa.float64(), block),
        (pa.float64(), pa.timestamp("us"), block),  # dates without a zone
        (_TEXT, pa.float64(), block),  # lines of blanks
        (_TEXT, _TEXT, block),  # other dates
        (_TEXT, _TEXT, _LARGEST_BLOCK),
    )


def _read_columns(path: Path, layout: Layout) -> RawColumns | None:
    with _gzip_errors(path):
        for ratings, timestamps, block in _ways(_BLOCK):
            try:
                with _open_rows(path, layout) as file:
                    table = pa.csv.read_csv(file, *_options(path, layout, ratings, timestamps, block))
            except pa.ArrowInvalid as error:
                refusal = error
            else:
                if not _has_infinity(table):  # no legal value; as text, it can be shown as it was written
                    return _columns(path, layout, table, 0) if table.num_rows else None
        if found := _diagnosis(path, layout, refusal):
            raise found from refusal
    return None


def _stream_columns(path: Path, layout: Layout) -> Iterator[RawColumns]:
    """As `_read_columns`, a block at a time.

    Where a block fails, the next way starts at the file's beginning and passes over the rows handed on already.
    """
    done = 0
    with _gzip_errors(path):
        for ratings, timestamps, block in _ways(_STREAMED_BLOCK):
            row = 0
            try:
                options = _options(path, layout, ratings, timestamps, block)
                with _open_rows(path, layout) as file, pa.csv.open_csv(file, *options) as reader:
                    for batch in reader:
                        table = pa.Table.from_batches([batch]).slice(max(0, done - row))
                        row += batch.num_rows
                        if not table.num_rows:
                            continue
                        if _has_infinity(table):
                            break
                        yield _columns(path, layout, table, done)
                        done = row
                    else:
                        return
            except pa.ArrowInvalid as error:
                refusal = error
        if found := _diagnosis(path, layout, refusal):
            raise found from refusal


def _columns(path: Path, layout: Layout, table: pa.Table, start: int) -> RawColumns:
    """The columns of a run of rows, of which the first is the file's row `start`."""
    dated = any(pa.types.is_timestamp(column.type) for column in table.columns)
    with ThreadPoolExecutor() as pool:  # Arrow lets go of the interpreter meanwhile
        columns_read = (table.column(str(position)) for position in layout.at.values())
        arrays = dict(zip(layout.at, pool.map(_whole, columns_read), strict=True))
    for parameter in ("user", "item"):
        arrays[parameter] = _checked_ids(arrays[parameter], path, layout, parameter, start)
    return RawColumns(
        users=arrays["user"],
        items=arrays["item"],
        ratings=arrays["rating"],
        timestamps=arrays.get("timestamp"),
        place=lambda row: f"{path}:{_line_of(path, layout, start + row)}",
        dated=dated,
    )


def _has_infinity(table: pa.Table) -> bool:
    floats = (column for column in table.columns if pa.types.is_floating(column.type))
    return any(pc.any(pc.is_inf(column)).as_py() for column in floats)


def _open_rows(path: Path, layout: Layout) -> BinaryIO:
    """The file's bytes with every separator as one byte."""
    source = open_bytes(path)
    if delimiter(layout.separator) == layout.separator:
        return source
    raw = _OneByteSeparators(source, path, layout.separator.encode())
    return cast(BinaryIO, io.BufferedReader(raw, 1 << 20))


class _OneByteSeparators(io.RawIOBase):
    """`source` with each `separator` replaced; by whole lines, so that none is cut in two."""

    def __init__(self, source: BinaryIO, path: Path, separator: bytes) -> None:
        self._source, self._path, self._separator = source, path, separator
        self._ready = memoryview(b"")
        self._rest = b""  # the start of a line whose end is not read yet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._source.read(1 << 22)
            text = self._rest + chunk
            end = text.rfind(b"\n") + 1 if chunk else len(text)
            self._rest = text[end:]
            if not chunk and not end:
                return 0
            if UNIT.encode() in text:
                raise InputError(
                    f"{self._path}: the control character 0x1f cannot stand in a file whose separator is "
                    f"{self._separator.decode()!r}; remove it"
                )
            self._ready = memoryview(text[:end].replace(self._separator, UNIT.encode()))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _options(
    path: Path, layout: Layout, ratings: pa.DataType, timestamps: pa.DataType, block: int
) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions, pa.csv.ConvertOptions]:
    """Arrow's options to get the needed columns, of the given types and named by their positions."""
    kinds = {"user": _TEXT, "item": _TEXT, "rating": ratings, "timestamp": timestamps}
    types = {str(position): kinds[parameter] for parameter, position in layout.at.items()}
    return (
        pa.csv.ReadOptions(
            # Own names: those of other columns may repeat.
            column_names=[str(position) for position in range(layout.width)],
            skip_rows=layout.skipped,
            block_size=block,
        ),
        pa.csv.ParseOptions(
            delimiter=delimiter(layout.separator),
            newlines_in_values=True,  # or a line break in quotes at a block's border would cut an id
            invalid_row_handler=_skip_blanks if ratings == _TEXT and _is_utf8(path) else None,
        ),
        pa.csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=list(MISSING_NUMBERS),
            strings_can_be_null=False,  # "NA" is a missing rating, and a legal id
        ),
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    elif pa.types.is_timestamp(column.type):
        column = pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _checked_ids(ids: pa.DictionaryArray, path: Path, layout: Layout, parameter: str, start: int) -> pa.DictionaryArray:
    def holding(sign: str) -> pa.Array:
        return pc.match_substring(ids.dictionary, sign)

    if pc.any(broken := holding("\0")).as_py():
        row = pc.index(broken.take(ids.indices), True).as_py()
        raise InputError(
            f"{path}:{_line_of(path, layout, start + row)}: the {parameter} id holds a NUL byte; remove it"
        )
    if delimiter(layout.separator) == layout.separator or not pc.any(holding(UNIT)).as_py():
        return ids
    # A separator within quotes belongs to the id.
    return pa.DictionaryArray.from_arrays(ids.indices, pc.replace_substring(ids.dictionary, UNIT, layout.separator))


def _rows(path: Path, layout: Layout, most: float = math.inf) -> Iterator[tuple[int, int, list[str]]]:
    """Rows with their numbers, the numbers of their lines, and their fields, by the csv module; to place a mistake.

    That is slow, so up to `most` rows at the file's beginning are passed over, as long as they are plain.
    """
    row, size = _plain(path, layout, most)
    with _open_rows(path, layout) as file:
        for start in range(0, size, _BLOCK):
            file.read(min(_BLOCK, size - start))
        with io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            for _ in range(0 if size else layout.skipped):
                next(text)
            reader = csv_reader(text, layout.separator)
            start, passed = 1, layout.skipped + row
            for fields in reader:
                if len(fields) == layout.width or not _is_blank(layout.separator.join(fields)):
                    yield row, passed + start, fields
                    row += 1
                start = reader.line_num + 1


def _plain(path: Path, layout: Layout, most: float) -> tuple[int, int]:
    """How many rows at the beginning, and bytes until their end, have the right number of fields and no quotes."""
    rows = size = 0
    sign = ord(delimiter(layout.separator))
    with _open_rows(path, layout) as file:
        before = b"".join(file.readline() for _ in range(layout.skipped))
        text = b""
        while chunk := file.read(_BLOCK):
            text += chunk
            whole = text[: text.rfind(b"\n") + 1]
            lines = whole.count(b"\n")
            if rows + lines > most or b'"' in whole or whole.count(b"\r") != whole.count(b"\r\n"):
                break
            signs = np.frombuffer(whole, np.uint8)
            fields = np.diff(np.cumsum(signs == sign)[signs == ord("\n")], prepend=0) + 1
            if (fields != layout.width).any():
                break
            rows, size, text = rows + lines, size + len(whole), text[len(whole) :]
    return rows, size and len(before) + size


def _skip_blanks(row: pa.csv.InvalidRow) -> str:
    # Arrow skips empty lines itself, but not those of blanks.
    return "skip" if _is_blank(row.text) else "error"


def _is_utf8(path: Path) -> bool:
    """Whether all of the file is; if not, a row that Arrow hands over may not even be decoded."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        try:
            while chunk := file.read(1 << 22):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\r\n")


def _line_of(path: Path, layout: Layout, row: int) -> int:
    return next(line for found, line, _ in _rows(path, layout, row) if found == row)


def _diagnosis(path: Path, layout: Layout, error: pa.ArrowInvalid) -> InputError | None:
    """What is wrong with a file that Arrow refused even as text; None where it only has no rows."""
    for _, number, fields in _rows(path, layout):
        if len(fields) != layout.width:
            remedy = "correct or remove the row"
            if len(fields) == layout.width + 1 and not fields[-1].strip():
                remedy = "remove the separator at the end of the line"
            elif len(fields) > layout.width:
                remedy = "put quotes around a value that holds the separator, or correct the row"
            text = shorten(layout.separator.join(fields))
            return InputError(f"{path}:{number}: expected {layout.width} fields, got {len(fields)} in {text}; {remedy}")
    if next(_rows(path, layout, 0), None) is None:
        return None
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                decoded(line, path, number)
            except InputError as problem:
                return problem
    return InputError(f"{path}: cannot be read ({shorten(error, 200)}); check the file's quotes and lines")
