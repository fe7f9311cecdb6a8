"""What differs between the files of a version and those of a training that should have made the same."""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from recsys.arrays import Array
from recsys.serving.integrity import digest_folder

_ARCHIVES = (".npz", ".skops")


@dataclass(frozen=True)
class Comparison:
    """How many files there are, how many of them are byte for byte the same, and of the others what differs first."""

    files: int
    same: int
    differences: dict[str, str]

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        """One line: how many are identical, and of the first that is not, what and by how much."""
        if self.identical:
            return f"identical, {self.same} of {self.files} files"
        name, what = next(iter(self.differences.items()))
        more = f"; {len(self.differences) - 1} more differ" if len(self.differences) > 1 else ""
        return f"{self.same} of {self.files} files identical; {name}: {what}{more}"


def compare_folders(registered: Path, made: Path) -> Comparison:
    """Compare all files of two folders by their digests, and those that differ by what is in them."""
    then, now = digest_folder(registered), digest_folder(made)
    names = sorted(then.keys() | now.keys())
    differences = {}
    for name in names:
        if name not in now:
            differences[name] = "was not made again"
        elif name not in then:
            differences[name] = "is not in the version"
        elif then[name] != now[name]:
            differences[name] = _describe(registered / name, made / name)
    return Comparison(len(names), len(names) - len(differences), differences)


def _describe(registered: Path, made: Path) -> str:
    """The first thing that differs between two files of one name."""
    try:
        if made.suffix in _ARCHIVES:
            return _first(_archive(registered), _archive(made))
        if made.suffix == ".parquet":
            return _first(_columns(registered), _columns(made))
        if made.suffix == ".json":
            texts = (json.loads(path.read_text(encoding="utf-8")) for path in (registered, made))
            return _first(*(_leaves(text) for text in texts))
    except (ValueError, OSError, zipfile.BadZipFile) as error:  # Arrow's are ValueErrors
        return f"cannot be compared ({type(error).__name__}: {error})"
    return _first(iter([("content", registered.read_bytes())]), iter([("content", made.read_bytes())]))


def _first(registered: Iterator[tuple[str, Any]], made: Iterator[tuple[str, Any]]) -> str:
    """Which of the named parts differs first, and how."""
    for then, now in zip_longest(registered, made):
        if then is None or now is None or then[0] != now[0]:
            return f"{then[0] if then else 'nothing'} stands where {now[0] if now else 'nothing'} was made"
        name, (before, after) = then[0], (then[1], now[1])
        if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
            if (what := _arrays(before, after)) is not None:
                return f"{name} {what}"
        elif before != after:
            if isinstance(before, bytes):
                place = next(i for i, pair in enumerate(zip_longest(before, after)) if pair[0] != pair[1])
                return f"{name} differs from byte {place:,} on"
            return f"{name} was {before!r}, is {after!r}"
    return "the same content, written otherwise"


def _arrays(then: Array, now: Array) -> str | None:
    """How an array differs from another; None where it does not."""
    if (then.shape, then.dtype) != (now.shape, now.dtype):
        return f"was {then.dtype} of shape {then.shape}, is {now.dtype} of shape {now.shape}"
    numbers = np.issubdtype(then.dtype, np.number)
    changed = (then != now) & ~(np.isnan(then) & np.isnan(now)) if numbers else then != now
    if not changed.any():
        return None
    where = f"differs in {int(changed.sum()):,} of {then.size:,} values"
    if not numbers:
        return where
    apart = np.abs(then[changed].astype(np.float64) - now[changed].astype(np.float64))
    return f"{where}, by at most {float(apart.max()):.3g}"


def _archive(path: Path) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            yield name.removesuffix(".npy"), _loaded(content) if name.endswith(".npy") else content


def _loaded(content: bytes) -> Any:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError:  # an array of objects
        return content


def _columns(path: Path) -> Iterator[tuple[str, Any]]:
    table = pq.read_table(path)
    for name in table.column_names:
        yield f"column {name}", table[name].to_numpy(zero_copy_only=False)


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if pairs is None:
        yield path, content
        return
    for key, value in pairs:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))
