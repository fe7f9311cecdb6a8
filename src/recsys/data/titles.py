"""What items are called: a table of ids and titles."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow import ArrowException

from recsys.data.readers.source import SEPARATORS
from recsys.errors import InputError

_COLUMNS = ("item_id", "title")
_LONGEST = 300  # characters; what is longer is cut


def read_titles(path: Path) -> dict[str, str]:
    """Titles by item id, from a Parquet file or delimited text with the columns `item_id` and `title`.

    Raises:
        InputError: naming file and line, where it cannot be read, lacks a column, or a line is cut off.
    """
    try:
        rows = _read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    except (OSError, UnicodeDecodeError, csv.Error, ArrowException) as error:
        raise InputError(f"{path}: a table of item_id and title is needed, but {error}") from None
    return {name.strip(): " ".join(title.split())[:_LONGEST] for name, title in rows if name.strip()}


def _read_parquet(path: Path) -> list[tuple[str, str]]:
    names = pq.read_schema(path).names
    _check_columns(path, names)
    table = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
    return [(str(row["item_id"]), str(row["title"])) for row in table if None not in row.values()]


def _read_text(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        separator = max(SEPARATORS, key=header.count)
        names = next(csv.reader([header], delimiter=separator), [])
        _check_columns(path, names)
        at = [names.index(name) for name in _COLUMNS]
        reader = csv.reader(file, delimiter=separator)
        rows = []
        for row in reader:
            if row and len(row) <= max(at):
                raise InputError(
                    f"{path}:{reader.line_num + 1}: {len(names)} columns are needed, as in the first line, "
                    f"got {len(row)}"
                )
            if row:
                rows.append((row[at[0]], row[at[1]]))
        return rows


def _check_columns(path: Path, names: list[str]) -> None:
    if missing := [name for name in _COLUMNS if name not in names]:
        raise InputError(f"{path}: column {missing[0]!r} is needed, got {', '.join(map(str, names))[:200]}")
