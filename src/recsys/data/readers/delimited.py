"""Ratings files of delimited text: CSV and its relatives, plain or gzipped."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recsys.data.readers.dialect import LONGEST_ROW, UNIT, Dialect, delimiter, find_dialect, open_rows
from recsys.data.readers.encoding import open_bytes
from recsys.data.readers.mistakes import diagnosis, is_blank, line_of
from recsys.data.readers.source import ColumnNames, RawBlock, Source, TextFormat, seconds, shorten
from recsys.errors import InputError

MISSING_NUMBERS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")

_TEXT = pa.dictionary(pa.int32(), pa.string())
_BLOCK = 1 << 24  # bytes; the ids of each block are looked up one by one, so there are to be few blocks


def open_file(path: Path, columns: ColumnNames, text: TextFormat) -> Source:
    """Look at a text file; its rows have ratings and timestamps as text where not all are plain numbers."""
    with _gzip_errors(path):
        dialect = find_dialect(path, columns, text)
    return Source(
        path,
        tuple(dialect.at),
        dialect.headed,
        lambda: _read_blocks(path, dialect),
        dialect.notes,
    )


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file ({shorten(error)}); copy or compress it again") from error


def _read_blocks(path: Path, dialect: Dialect) -> Iterator[RawBlock]:
    """The file's rows, a block at a time.

    Where a block fails, the next way starts at the file's beginning and passes over the rows handed on already.
    """
    done = 0
    with _gzip_errors(path):
        for ratings, timestamps, size in (  # from the fastest way to the most lenient; mistakes fail all of them
            (pa.float64(), pa.float64(), _BLOCK),
            (pa.float64(), pa.timestamp("us"), _BLOCK),  # dates without a zone
            (_TEXT, pa.float64(), _BLOCK),  # lines of blanks
            (_TEXT, _TEXT, _BLOCK),  # other dates
            (_TEXT, _TEXT, LONGEST_ROW),  # a row has to fit in a block
        ):
            row = 0
            try:
                options = _options(path, dialect, ratings, timestamps, size)
                with open_rows(path, dialect) as file, pa.csv.open_csv(file, *options) as reader:
                    for batch in reader:
                        rows = batch.slice(max(0, done - row))
                        row += batch.num_rows
                        if not rows.num_rows:
                            continue
                        if _has_infinity(rows):  # no legal value; as text, it can be shown as it was written
                            break
                        yield _raw_block(path, dialect, rows, done)
                        done = row
                    else:
                        return
            except pa.ArrowInvalid as error:
                refusal = error
        if found := diagnosis(path, dialect, refusal):
            raise found from refusal


def _raw_block(path: Path, dialect: Dialect, rows: pa.RecordBatch, start: int) -> RawBlock:
    """Some rows, of which the first is the file's row `start`."""
    arrays = {parameter: rows.column(str(position)) for parameter, position in dialect.at.items()}
    for parameter in ("user", "item"):
        arrays[parameter] = _checked_ids(arrays[parameter], path, dialect, parameter, start)
    timestamps = arrays.get("timestamp")
    dated = timestamps is not None and pa.types.is_timestamp(timestamps.type)
    return RawBlock(
        users=arrays["user"],
        items=arrays["item"],
        ratings=_with_points(arrays.get("rating"), dialect),
        timestamps=seconds(timestamps) if dated else timestamps,
        place=lambda row: f"{path}:{line_of(path, dialect, start + row)}",
        dated=dated,
    )


def _with_points(ratings: pa.Array | None, dialect: Dialect) -> pa.Array | None:
    """Ratings that are still text, with decimal points."""
    if ratings is None or dialect.decimal == "." or not pa.types.is_dictionary(ratings.type):
        return ratings
    texts = pc.replace_substring(ratings.dictionary, dialect.decimal, ".")
    return pa.DictionaryArray.from_arrays(ratings.indices, texts)


def _has_infinity(rows: pa.RecordBatch) -> bool:
    floats = (column for column in rows.columns if pa.types.is_floating(column.type))
    return any(pc.any(pc.is_inf(column)).as_py() for column in floats)


def _options(
    path: Path, dialect: Dialect, ratings: pa.DataType, timestamps: pa.DataType, block: int
) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions, pa.csv.ConvertOptions]:
    """Arrow's options to get the needed columns, of the given types and named by their positions."""
    kinds = {"user": _TEXT, "item": _TEXT, "rating": ratings, "timestamp": timestamps}
    types = {str(position): kinds[parameter] for parameter, position in dialect.at.items()}
    return (
        pa.csv.ReadOptions(
            # Own names: those of other columns may repeat.
            column_names=[str(position) for position in range(dialect.width)],
            skip_rows=dialect.skipped,
            block_size=block,
        ),
        pa.csv.ParseOptions(
            delimiter=delimiter(dialect.separator),
            newlines_in_values=True,  # or a line break in quotes at a block's border would cut an id
            invalid_row_handler=_skip_blanks if ratings == _TEXT and _is_utf8(path, dialect) else None,
        ),
        pa.csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=list(MISSING_NUMBERS),
            decimal_point=dialect.decimal,
            strings_can_be_null=False,  # "NA" is a missing rating, and a legal id
        ),
    )


def _checked_ids(
    ids: pa.DictionaryArray, path: Path, dialect: Dialect, parameter: str, start: int
) -> pa.DictionaryArray:
    def holding(sign: str) -> pa.Array:
        return pc.match_substring(ids.dictionary, sign)

    if pc.any(broken := holding("\0")).as_py():
        row = pc.index(broken.take(ids.indices), True).as_py()
        raise InputError(
            f"{path}:{line_of(path, dialect, start + row)}: the {parameter} id holds a NUL byte; remove it"
        )
    if delimiter(dialect.separator) == dialect.separator or not pc.any(holding(UNIT)).as_py():
        return ids
    # A separator within quotes belongs to the id.
    return pa.DictionaryArray.from_arrays(ids.indices, pc.replace_substring(ids.dictionary, UNIT, dialect.separator))


def _skip_blanks(row: pa.csv.InvalidRow) -> str:
    # Arrow skips empty lines itself, but not those of blanks.
    return "skip" if is_blank(row.text) else "error"


def _is_utf8(path: Path, dialect: Dialect) -> bool:
    """Whether all of the file is; if not, a row that Arrow hands over may not even be decoded."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path, dialect.encoding) as file:
        try:
            while chunk := file.read(1 << 22):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True
