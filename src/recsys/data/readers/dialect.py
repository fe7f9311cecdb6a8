"""The dialect of a delimited text file: what separates its fields, where its rows begin, which column is which."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from recsys.data.readers.encoding import UTF_8, find_encoding, open_bytes
from recsys.data.readers.source import ColumnNames, TextFormat, WeightedNames, find_or_raise_positions, shorten
from recsys.errors import InputError

if TYPE_CHECKING:
    import _csv

UNIT = "\x1f"  # ASCII's unit separator: stands in for a separator of several bytes

_CANDIDATES = ("::", "\t", ";", "|", ",")
_WORDS = {"tab": "\t", "\\t": "\t", "comma": ","}
LONGEST_ROW = 1 << 26  # bytes: a file of reviews has long texts beside its ratings
_HEAD = 1 << 20  # bytes looked at to learn the dialect
_MOST_LINES = 1_000
_UTF_8_MARK = b"\xef\xbb\xbf"
_SEPARATOR_LINE = re.compile(rb'"?sep=[^"]{1,2}"?', re.IGNORECASE)  # Excel's, before the header, which says it too


@dataclass(frozen=True)
class Dialect:
    """How a file's lines are to be read."""

    separator: str
    width: int  # fields in a line
    skipped: int  # lines before the first row, the header included
    at: dict[str, int]  # "user", "item" and perhaps "rating" and "timestamp" -> position in the line
    headed: bool
    notes: tuple[str, ...] = ()
    encoding: str = UTF_8
    decimal: str = "."


def find_dialect(path: Path, columns: ColumnNames, text: TextFormat) -> Dialect:
    """Learn a file's dialect from its first lines; raises InputError where they are no ratings file's."""
    encoding = find_encoding(path, text.encoding)
    found = _find_columns(path, columns, text.separator, encoding)
    decimal = {"point": ".", "comma": ","}.get(text.decimal) or _find_decimal(path, found, encoding)
    notes = list(found.notes)
    if text.encoding == "auto" and encoding != UTF_8:
        notes.append(f"{path} is {encoding.upper()}, by the mark at its beginning")
    if text.decimal == "auto" and decimal == ",":
        what = "weights" if isinstance(columns, WeightedNames) else "ratings"
        notes.append(f"{path}: {what} have a decimal comma, none has a point")
    if decimal == found.separator:
        raise InputError(f"{path}: the decimal comma is what separates the columns, too; pass -P decimal=point")
    return replace(found, encoding=encoding, decimal=decimal, notes=tuple(notes))


def _find_decimal(path: Path, dialect: Dialect, encoding: str) -> str:
    """A comma where ratings of the first lines have one, no rating has a point, and columns are separated otherwise."""
    if dialect.separator == "," or "rating" not in dialect.at:
        return "."
    with open_bytes(path, encoding) as file:
        lines = file.read(_HEAD).removeprefix(_UTF_8_MARK).splitlines()[dialect.skipped :]
    values: list[str] = []
    for line in lines[:_MOST_LINES]:
        fields = _fields(line.decode(errors="replace"), dialect.separator) if line.strip() else []
        values += fields[dialect.at["rating"] :][:1]
    commas = [value for value in values if re.fullmatch(r"[+-]?\d*,\d+", value)]
    return "," if commas and not any("." in value for value in values) else "."


def _find_columns(path: Path, columns: ColumnNames, separator: str, encoding: str) -> Dialect:
    separator = _WORDS.get(separator, separator)
    if not separator or any(sign in separator for sign in '\n\r"\0'):
        raise InputError(
            f"separator: expected 'auto', 'tab', 'comma' or the characters themselves, got {separator!r}; "
            "pass -P separator=auto to have it found"
        )
    number, line = _first_line(path, encoding)
    needed = {columns.user, columns.item, columns.rating}
    tried = _CANDIDATES if separator == "auto" else (separator,)
    fitting = [candidate for candidate in tried if {columns.user, columns.item} <= set(_fields(line, candidate))]
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
    return Dialect(chosen, len(names), number, at, True)


def _headerless(path: Path, columns: ColumnNames, separator: str, number: int, fields: list[str]) -> Dialect:
    if replace(columns, rating=columns.rating or ColumnNames().rating) != ColumnNames():
        raise InputError(
            f"{path}:{number}: no header, so the column parameters name nothing; the columns of the first "
            f"line are {shorten(', '.join(fields))}: add a header, or leave out -P user_column, "
            "item_column, rating_column and timestamp_column to read these four by position"
        )
    at = dict(zip(vars(columns), range(min(len(fields), 4)), strict=False))
    if columns.rating is None:
        at.pop("rating", None)
    note = f"{path} has no header: its columns are read by position as {', '.join(at)}"
    return Dialect(separator, len(fields), number - 1, at, False, (note,))


def _is_row(fields: list[str]) -> bool:
    return len(fields) >= 3 and all(_is_number(field.replace(",", ".", 1)) for field in fields[2:4])


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


def _first_line(path: Path, encoding: str) -> tuple[int, str]:
    """The number and text of the first line that is not blank and not Excel's `sep=;`."""
    with open_bytes(path, encoding) as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: expected text, got a zip archive or spreadsheet; give the CSV file in it")
    if b"\0" in head:
        row = head.count(b"\n", 0, head.index(b"\0")) + 1
        raise InputError(f"{path}:{row}: expected text, got a NUL byte; give a CSV file in UTF-8, or a Parquet file")
    for number, line in enumerate(head.removeprefix(_UTF_8_MARK).splitlines(), start=1):
        if line.strip() and not _SEPARATOR_LINE.fullmatch(line.strip()):
            return number, decoded(line, path, number)
    raise InputError(f"{path}: the file is empty; give a file with a header and ratings")


def decoded(line: bytes, path: Path, number: int) -> str:
    """The text of a line; raises InputError where it is no UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        shown = shorten(line.decode(errors="backslashreplace").rstrip("\r\n"))
        raise InputError(
            f"{path}:{number}: expected UTF-8 text, got byte 0x{line[error.start]:02x} in {shown}; "
            "save the file as UTF-8, or pass its own encoding, such as -P encoding=latin-1"
        ) from error


def _fields(line: str, separator: str) -> list[str]:
    sign = delimiter(separator)
    text = line if sign == separator else line.replace(separator, sign)
    return [field.strip() for field in next(csv_reader([text], separator))]


def csv_reader(lines: Iterable[str], separator: str) -> "_csv.Reader":
    """A reader of lines whose separators are one byte each; it raises csv.Error at a field beyond LONGEST_ROW."""
    csv.field_size_limit(LONGEST_ROW)
    return csv.reader(lines, delimiter=delimiter(separator))


def delimiter(separator: str) -> str:
    """The one byte that stands between fields when a file is read."""
    return separator if len(separator.encode()) == 1 else UNIT


def open_rows(path: Path, dialect: Dialect) -> BinaryIO:
    """The file's bytes with every separator as one byte."""
    source = open_bytes(path, dialect.encoding)
    if delimiter(dialect.separator) == dialect.separator:
        return source
    raw = _OneByteSeparators(source, path, dialect.separator.encode())
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
