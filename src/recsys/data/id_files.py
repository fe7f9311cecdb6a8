"""Files of ids: Parquet, CSV with a header, or one id a line."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Ids
from recsys.data.readers.source import SEPARATORS
from recsys.errors import InputError

_CERTAIN = ",;\t"  # of columns: a bar may belong to an id


def read_ids(path: Path, columns: Sequence[str], parameter: str) -> tuple[Ids, int]:
    """The ids of a file in its order, each once, shape (n,); and how many lines repeat one.

    Args:
        path: Parquet by its suffix, else text. Where the first line of a text names the column, it is CSV, with any of
            SEPARATORS.
        columns: what that of the ids may be called, such as "user_id"; the first that is there counts.
        parameter: that names the file, for the message of an error.

    Raises:
        InputError: if there is no such file or column, an id is missing, or there is none.
    """
    try:
        column, found = (_of_parquet if path.suffix == ".parquet" else _of_text)(path, columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"parameter {parameter!r}: a file of ids is needed, got {str(path)!r} ({error})") from None
    for row, name in enumerate(found, 1):
        if not name:
            raise InputError(f"{path}: row {row}: column {column!r}: an id (text or integer) is needed, got nothing")
    if not found:
        raise InputError(f"{path}: at least one id is needed, but there is none")
    once = list(dict.fromkeys(found))
    return np.array(once, object), len(found) - len(once)


def _of_parquet(path: Path, columns: Sequence[str]) -> tuple[str, list[str]]:
    names = pq.read_schema(path).names
    column = next((column for column in columns if column in names), None)
    if column is None:
        raise InputError(f"{path}: a column {_either(columns)} is needed; there are {', '.join(names)}")
    values = pq.read_table(path, columns=[column])[column].combine_chunks()
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise InputError(f"{path}: column {column!r}: text or integers are needed, got {values.type}")
    return column, ["" if value is None else str(value).strip() for value in values.to_pylist()]


def _of_text(path: Path, columns: Sequence[str]) -> tuple[str, list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        for column, separator in product(columns, SEPARATORS):
            names = _names(first, separator)
            if column in names:
                rows, at = csv.reader(file, delimiter=separator), names.index(column)
                return column, [_id_of(row, at, len(names), f"{path}:{rows.line_num + 1}") for row in rows if row]
        names = max((_names(first, separator) for separator in _CERTAIN), key=len)
        if len(names) > 1:
            raise InputError(
                f"{path}: a column {_either(columns)} is needed; there are {', '.join(names)}; name it so, or give one "
                f"id a line (ids with commas, semicolons or tabs in quotes, below a first line {columns[0]})"
            )
        file.seek(0)
        return columns[0], [line.strip() for line in file]


def _names(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]


def _id_of(row: list[str], at: int, width: int, place: str) -> str:
    if len(row) > width:
        raise InputError(
            f"{place}: as many columns as in the first line ({width}) are needed, got {row}; put what holds a "
            "separator in quotes"
        )
    return row[at].strip() if at < len(row) else ""


def _either(columns: Sequence[str]) -> str:
    return " or ".join(map(repr, columns))
