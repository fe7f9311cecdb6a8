"""The lists that a server's file has on record, as its readers see them."""

from pathlib import Path
from typing import Any

from recsys.monitoring.archive import LIST_COLUMNS, Archive


def record_rows(path: Path, columns: str = "request") -> list[tuple[Any, ...]]:
    """Those columns of each list: of trials first, the others as they were written."""
    places = [LIST_COLUMNS.index(name) for name in columns.split(", ")]
    pages = Archive(f"sqlite:///{path}").lists(0, float("inf"))
    return [tuple(row[at] for at in places) for page in pages for row in page]
