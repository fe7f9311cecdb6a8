"""Mistakes in delimited text: on which line a row stands, and what is wrong with a file that cannot be read."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa

from recsys.data.readers.dialect import LONGEST_ROW, Dialect, csv_reader, decoded, delimiter, open_rows
from recsys.data.readers.encoding import open_bytes
from recsys.data.readers.source import shorten
from recsys.errors import InputError

_BLOCK = 1 << 22  # bytes


def line_of(path: Path, dialect: Dialect, row: int) -> int:
    """The number, from 1, of the line on which a row, counted from 0, begins."""
    return next(line for found, line, _ in _rows(path, dialect, row) if found == row)


def diagnosis(path: Path, dialect: Dialect, error: pa.ArrowInvalid) -> InputError | None:
    """What is wrong with a file that Arrow refused even as text; None where it only has no rows."""
    for _, number, fields in _rows(path, dialect):
        if len(fields) != dialect.width:
            remedy = "correct or remove the row"
            if len(fields) == dialect.width + 1 and not fields[-1].strip():
                remedy = "remove the separator at the end of the line"
            elif len(fields) > dialect.width:
                remedy = "put quotes around a value that holds the separator, or correct the row"
            text = shorten(dialect.separator.join(fields))
            return InputError(
                f"{path}:{number}: expected {dialect.width} fields, got {len(fields)} in {text}; {remedy}"
            )
    if next(_rows(path, dialect, 0), None) is None:
        return None
    with open_bytes(path, dialect.encoding) as file:
        for number, line in enumerate(file, start=1):
            try:
                decoded(line, path, number)
            except InputError as problem:
                return problem
    return InputError(f"{path}: cannot be read ({shorten(error, 200)}); check the file's quotes and lines")


def is_blank(line: str) -> bool:
    """Whether a line has nothing but blanks."""
    return not line.strip(" \t\r\n")


def _rows(path: Path, dialect: Dialect, most: float = math.inf) -> Iterator[tuple[int, int, list[str]]]:
    """Rows with their numbers, the numbers of their lines, and their fields, by the csv module; to place a mistake.

    That is slow, so up to `most` rows at the file's beginning are passed over, as long as they are plain.
    """
    row, size = _plain(path, dialect, most)
    with open_rows(path, dialect) as file:
        for start in range(0, size, _BLOCK):
            file.read(min(_BLOCK, size - start))
        with io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            for _ in range(0 if size else dialect.skipped):
                next(text)
            start, passed = 1, dialect.skipped + row

            def too_long() -> InputError:
                return InputError(
                    f"{path}:{passed + start}: expected rows of at most {LONGEST_ROW >> 20} MB, got a longer one; "
                    "close its quotes, or leave the long column out"
                )

            reader = csv_reader(_short_lines(text, too_long), dialect.separator)
            try:
                for fields in reader:
                    if len(fields) == dialect.width or not is_blank(dialect.separator.join(fields)):
                        yield row, passed + start, fields
                        row += 1
                    start = reader.line_num + 1
            except csv.Error as error:  # the csv module's own limit, within quotes
                raise too_long() from error


def _short_lines(text: TextIO, too_long: Callable[[], InputError]) -> Iterator[str]:
    while line := text.readline(LONGEST_ROW):
        if len(line) == LONGEST_ROW:
            raise too_long()
        yield line


def _plain(path: Path, dialect: Dialect, most: float) -> tuple[int, int]:
    """How many rows at the beginning, and bytes until their end, have the right number of fields and no quotes."""
    rows = size = 0
    sign = ord(delimiter(dialect.separator))
    with open_rows(path, dialect) as file:
        before = b"".join(file.readline() for _ in range(dialect.skipped))
        text = b""
        while chunk := file.read(_BLOCK):
            text += chunk
            if len(text) > LONGEST_ROW:
                break
            whole = text[: text.rfind(b"\n") + 1]
            lines = whole.count(b"\n")
            if rows + lines > most or b'"' in whole or whole.count(b"\r") != whole.count(b"\r\n"):
                break
            signs = np.frombuffer(whole, np.uint8)
            fields = np.diff(np.cumsum(signs == sign)[signs == ord("\n")], prepend=0) + 1
            if (fields != dialect.width).any():
                break
            rows, size, text = rows + lines, size + len(whole), text[len(whole) :]
    return rows, size and len(before) + size
