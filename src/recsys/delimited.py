"""Ratings files of delimited text: CSV and its relatives, plain or gzipped."""

import codecs
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recsys.columns import Columns, RawColumns, find_or_raise_positions, shorten
from recsys.errors import InputError

if TYPE_CHECKING:
    import _csv

MISSING_NUMBERS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")

_GZIP_MAGIC = b"\x1f\x8b"
_CANDIDATES = ("::", "\t", ";", "|", ",")
_WORDS = {"tab": "\t", "\\t": "\t", "comma": ","}
_TEXT = pa.dictionary(pa.int32(), pa.string())
_UNIT = "\x1f"  # ASCII's unit separator: stands in for a separator of several bytes
_HEAD = 1 << 20  # bytes looked at to learn the layout
# Larger than Arrow's own 1 MiB: every block brings dictionaries of its own, to be unified.
_BLOCK = 1 << 22
_LARGEST_BLOCK = 1 << 28  # no line may be longer than a block


@dataclass(frozen=True)
class _Layout:
    """How a file's lines are to be read."""

    separator: str
    width: int  # fields in a line
    skipped: int  # lines before the first row, the header included
    at: dict[str, int]  # "user", "item", "rating" and perhaps "timestamp" -> position in the line
    notes: tuple[str, ...] = ()


def read_columns(path: Path, columns: Columns, separator: str) -> RawColumns:
    """The needed columns of a text file; ratings and timestamps as text where not all are plain numbers."""
    try:
        layout = _layout(path, columns, _WORDS.get(separator, separator))
        table = _read_somehow(path, layout)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file ({shorten(error)}); copy or compress it again") from error
    if table.num_rows == 0:
        raise _no_rows(path)

    with ThreadPoolExecutor() as pool:  # Arrow lets go of the interpreter meanwhile
        columns_read = (table.column(str(position)) for position in layout.at.values())
        arrays = dict(zip(layout.at, pool.map(_whole, columns_read), strict=True))
    for parameter in ("user", "item"):
        arrays[parameter] = _checked_ids(arrays[parameter], path, layout, parameter)
    return RawColumns(
        users=arrays["user"],
        items=arrays["item"],
        ratings=arrays["rating"],
        timestamps=arrays.get("timestamp"),
        place=lambda row: f"{path}:{_line_of(path, layout, row)}",
        notes=layout.notes,
    )


def _read_somehow(path: Path, layout: _Layout) -> pa.Table:
    # From the fastest way to the most lenient; mistakes fail all of them.
    ways = (
        (pa.float64(), pa.float64(), _BLOCK),
        (pa.float64(), pa.timestamp("us"), _BLOCK),  # dates without a zone
        (_TEXT, _TEXT, _BLOCK),  # other dates, lines of blanks, line breaks in quotes
        (_TEXT, _TEXT, _LARGEST_BLOCK),
    )
    for ratings, timestamps, block in ways:
        try:
            table = _read(path, layout, ratings, timestamps, block)
        except pa.ArrowInvalid as error:
            refusal = error
        else:
            if not _has_infinity(table):  # no legal value; as text, it can be shown as it was written
                return table
    raise _diagnosis(path, layout, refusal) from refusal


def _has_infinity(table: pa.Table) -> bool:
    floats = (column for column in table.columns if pa.types.is_floating(column.type))
    return any(pc.any(pc.is_inf(column)).as_py() for column in floats)


def _layout(path: Path, columns: Columns, separator: str) -> _Layout:
    if not separator or any(sign in separator for sign in '\n\r"\0'):
        raise InputError(
            f"separator: expected 'auto', 'tab', 'comma' or the characters themselves, got {separator!r}; "
            "pass -P separator=auto to have it found"
        )
    number, line = _first_line(path)
    needed = {columns.user, columns.item, columns.rating}
    tried = _CANDIDATES if separator == "auto" else (separator,)
    fitting = [candidate for candidate in tried if needed <= set(_fields(line, candidate))]
    chosen = fitting[0] if fitting else max(tried, key=line.count)
    names = _fields(line, chosen)
    if not needed & set(names):
        for candidate in tried:
            fields = _fields(line, candidate)
            if _is_row(fields):
                return _headerless(path, columns, candidate, number, fields)
    if len(names) == 1:
        raise _one_column(f"{path}:{number}", line, separator)
    at = find_or_raise_positions(f"{path}:{number}", names, columns)
    return _Layout(chosen, len(names), number, at)


def _headerless(path: Path, columns: Columns, separator: str, number: int, fields: list[str]) -> _Layout:
    if columns != Columns():
        raise InputError(
            f"{path}:{number}: no header, so the column parameters name nothing; the columns of the first "
            f"line are {shorten(', '.join(fields))}: add a header, or leave out -P user_column, "
            "item_column, rating_column and timestamp_column to read these four by position"
        )
    at = dict(zip(vars(columns), range(min(len(fields), 4)), strict=False))
    note = f"{path} has no header: its columns are read by position as {', '.join(at)}"
    return _Layout(separator, len(fields), number - 1, at, (note,))


def _is_row(fields: list[str]) -> bool:
    return len(fields) >= 3 and all(_is_number(field) for field in fields[2:4])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _one_column(place: str, line: str, separator: str) -> InputError:
    likeliest = max(_CANDIDATES, key=line.count)
    if likeliest in line and likeliest != separator:
        word = {"\t": "tab", ",": "comma"}.get(likeliest, f"'{likeliest}'")
        return InputError(
            f"{place}: wrong separator: with {separator!r} the header has one column, {shorten(line)}; "
            f"it looks separated by {word}: pass -P separator={word} or -P separator=auto"
        )
    return InputError(
        f"{place}: the header has one column, {shorten(line)}; if that is several, "
        "name what separates them with -P separator=<characters>"
    )


def _first_line(path: Path) -> tuple[int, str]:
    """The number and text of the first line that is not blank."""
    with path.open("rb") as file:
        magic = file.read(len(_GZIP_MAGIC))
    if path.suffix == ".gz" and magic != _GZIP_MAGIC:
        raise InputError(f"{path}: not a gzip file, despite its name; rename it or compress it")
    with _open(path) as file:
        head = file.read(_HEAD)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8 text, got UTF-16; save the file as UTF-8")
    if head.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: expected text, got a zip archive or spreadsheet; give the CSV file in it")
    if b"\0" in head:
        row = head.count(b"\n", 0, head.index(b"\0")) + 1
        raise InputError(f"{path}:{row}: expected text, got a NUL byte; give a CSV file in UTF-8, or a Parquet file")
    for number, line in enumerate(head.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if line.strip():
            return number, _decoded(line, path, number)
    raise InputError(f"{path}: the file is empty; give a file with a header and ratings")


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        shown = shorten(line.decode(errors="backslashreplace").rstrip("\r\n"))
        raise InputError(
            f"{path}:{number}: expected UTF-8 text, got byte 0x{line[error.start]:02x} in {shown}; "
            "save the file as UTF-8"
        ) from error


def _fields(line: str, separator: str) -> list[str]:
    delimiter = _delimiter(separator)
    text = line if delimiter == separator else line.replace(separator, delimiter)
    return [field.strip() for field in next(_csv_reader([text], separator))]


def _csv_reader(lines: Iterable[str], separator: str) -> "_csv.Reader":
    csv.field_size_limit(1 << 30)  # no limit: a file of reviews has long texts beside its ratings
    return csv.reader(lines, delimiter=_delimiter(separator))


def _delimiter(separator: str) -> str:
    return separator if len(separator.encode()) == 1 else _UNIT


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb")


def _open_rows(path: Path, layout: _Layout) -> BinaryIO:
    """The file's bytes with every separator as one byte."""
    source = _open(path)
    if _delimiter(layout.separator) == layout.separator:
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
            if _UNIT.encode() in text:
                raise InputError(
                    f"{self._path}: the control character 0x1f cannot stand in a file whose separator is "
                    f"{self._separator.decode()!r}; remove it"
                )
            self._ready = memoryview(text[:end].replace(self._separator, _UNIT.encode()))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _read(path: Path, layout: _Layout, ratings: pa.DataType, timestamps: pa.DataType, block: int) -> pa.Table:
    """The needed columns, of the given types and named by their positions."""
    kinds = {"user": _TEXT, "item": _TEXT, "rating": ratings, "timestamp": timestamps}
    types = {str(position): kinds[parameter] for parameter, position in layout.at.items()}
    with _open_rows(path, layout) as file:
        return pa.csv.read_csv(
            file,
            pa.csv.ReadOptions(
                # Own names: those of other columns may repeat.
                column_names=[str(position) for position in range(layout.width)],
                skip_rows=layout.skipped,
                block_size=block,
            ),
            pa.csv.ParseOptions(
                delimiter=_delimiter(layout.separator),
                newlines_in_values=ratings == _TEXT,
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


def _checked_ids(ids: pa.DictionaryArray, path: Path, layout: _Layout, parameter: str) -> pa.DictionaryArray:
    texts = ids.dictionary.to_pylist()
    if any("\0" in text for text in texts):
        broken = pa.array([code for code, text in enumerate(texts) if "\0" in text], ids.indices.type)
        row = pc.index(pc.is_in(ids.indices, broken), True).as_py()
        raise InputError(f"{path}:{_line_of(path, layout, row)}: the {parameter} id holds a NUL byte; remove it")
    if not any(_UNIT in text for text in texts) or _delimiter(layout.separator) == layout.separator:
        return ids
    # A separator within quotes belongs to the id.
    whole = pa.array([text.replace(_UNIT, layout.separator) for text in texts], pa.string())
    return pa.DictionaryArray.from_arrays(ids.indices, whole)


def _rows(path: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """Every row's line number and fields, by the csv module: slow, and used only to place a mistake."""
    with (
        _open_rows(path, layout) as file,
        io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text,
    ):
        for _ in range(layout.skipped):
            next(text)
        reader = _csv_reader(text, layout.separator)
        start = 1
        for fields in reader:
            if len(fields) == layout.width or not _is_blank(layout.separator.join(fields)):
                yield layout.skipped + start, fields
            start = reader.line_num + 1


def _skip_blanks(row: pa.csv.InvalidRow) -> str:
    # Arrow skips empty lines itself, but not those of blanks.
    return "skip" if _is_blank(row.text) else "error"


def _is_utf8(path: Path) -> bool:
    """Whether all of the file is; if not, a row that Arrow hands over may not even be decoded."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(path) as file:
        try:
            while chunk := file.read(1 << 22):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\r\n")


def _line_of(path: Path, layout: _Layout, row: int) -> int:
    return next(itertools.islice(_rows(path, layout), row, None))[0]


def _no_rows(path: Path) -> InputError:
    return InputError(f"{path}: the file has a header but no rows; give a file with ratings")


def _diagnosis(path: Path, layout: _Layout, error: pa.ArrowInvalid) -> InputError:
    """What is wrong with a file that Arrow refused even as text."""
    number = 0
    for number, fields in _rows(path, layout):
        if len(fields) != layout.width:
            remedy = "correct or remove the row"
            if len(fields) == layout.width + 1 and not fields[-1].strip():
                remedy = "remove the separator at the end of the line"
            elif len(fields) > layout.width:
                remedy = "put quotes around a value that holds the separator, or correct the row"
            text = shorten(layout.separator.join(fields))
            return InputError(f"{path}:{number}: expected {layout.width} fields, got {len(fields)} in {text}; {remedy}")
    if not number:
        return _no_rows(path)
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                _decoded(line, path, number)
            except InputError as problem:
                return problem
    return InputError(f"{path}: cannot be read ({shorten(error, 200)}); check the file's quotes and lines")
