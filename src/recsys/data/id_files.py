"""Files of ids: Parquet, CSV with a header, or one id a line."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Ids
from recsys.errors import InputError


def read_ids(path: Path, column: str, parameter: str) -> tuple[Ids, int]:
    """The ids of a file in its order, each once, shape (n,); and how many lines repeat one.

    Args:
        path: Parquet by its suffix, else text. Where the first line of a text names the column, it is CSV.
        column: of the ids, "user_id" or "item_id".
        parameter: that names the file, for the message of an error.

    Raises:
        InputError: if there is no such file or column, an id is missing, or there is none.
    """
    try:
        found = _of_parquet(path, column) if path.suffix == ".parquet" else _of_text(path, column)
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


def _of_parquet(path: Path, column: str) -> list[str]:
    names = pq.read_schema(path).names
    if column not in names:
        raise InputError(f"{path}: a column {column!r} is needed; there are {', '.join(names)}")
    values = pq.read_table(path, columns=[column])[column].combine_chunks()
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise InputError(f"{path}: column {column!r}: text or integers are needed, got {values.type}")
    return ["" if value is None else str(value).strip() for value in values.to_pylist()]


def _of_text(path: Path, column: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        names = next(csv.reader([first]), [])
        at = next((number for number, name in enumerate(names) if name.strip() == column), None)
        if at is None:
            file.seek(0)
            return [line.strip() for line in file]
        return [row[at].strip() if at < len(row) else "" for row in csv.reader(file) if row]
