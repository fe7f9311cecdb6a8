"""The ratings given: one file, a folder of files or a glob, taken as one input in the order of the files' names."""

import glob
import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.readers import delimited, parquet
from recsys.data.readers.encoding import open_bytes
from recsys.data.readers.source import ColumnNames, Source, TextFormat
from recsys.errors import InputError
from recsys.runtime.files import digest_file

_SAMPLE = 1 << 18  # bytes of a text file from which the length of its rows is estimated


def find_files(source: Path) -> list[Path]:
    """The files that a path, a folder or a pattern with *, ? or [ stands for, by name.

    Of a folder, files whose names begin with "." or "_" are left out: that is how tools mark what is no data.

    Raises:
        InputError: if there are none.
    """
    if source.is_dir():
        found = [path for path in source.iterdir() if path.is_file() and not path.name.startswith((".", "_"))]
        if not found:
            folders = sum(path.is_dir() for path in source.iterdir())
            remedy = f"; for those in its folders pass {str(source / '*' / '*')!r}" if folders else ""
            raise InputError(f"{source}: the folder has no ratings files in it{remedy}")
    elif source.is_file():
        return [source]
    elif source.exists():
        raise InputError(
            f"{source}: a regular file is needed, got a pipe, a socket or a device, which cannot be read twice; write "
            "its content to a file and pass that"
        )
    elif glob.has_magic(str(source)):
        matches = glob.glob(str(source), recursive=True)  # noqa: PTH207  # the pattern's start may be absolute
        found = _once([path for path in map(Path, matches) if path.is_file()])
        if not found:
            raise InputError(f"{source}: no file's name matches; check the pattern, and quote it for the shell")
    else:
        raise InputError(f"{source}: no such file in {source.absolute().parent}; check the name, or pass the full path")
    return sorted(found)


def _once(files: list[Path]) -> list[Path]:
    """Each file by its shortest path: a link to a folder above makes a pattern find its files again and again."""
    found: dict[Path, Path] = {}
    for path in sorted(files, key=lambda path: (len(path.parts), path)):
        found.setdefault(path.resolve(), path)
    return list(found.values())


def digest_files(files: Sequence[Path]) -> str:
    """Digest of the files' bytes, in order; their names do not count."""
    digests = [digest_file(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()


def open_files(files: Sequence[Path], columns: ColumnNames, text: TextFormat) -> list[Source]:
    """Look at every file before the first is read.

    Raises:
        InputError: if one cannot be used, or has other columns than the first.
    """
    sources: list[Source] = []
    for path in files:
        if len(files) > 1 and path.stat().st_size == 0:
            continue
        try:
            source = _open_file(path, columns, text)
        except InputError as error:
            raise InputError(f"{error} ({sources[0].path} is in order)") if sources else error from None
        if sources:
            _compare(sources[0], source, columns)
        sources.append(source)
    if not sources:
        raise InputError(f"{files[0].parent}: all {len(files)} files are empty; give files with ratings")
    return sources


def estimate_rows(files: Sequence[Path]) -> int:
    """About how many rows the files have: exact for Parquet, else by the length of the first lines."""
    return sum(_rows_of(path) for path in files)


def is_parquet(path: Path) -> bool:
    """By its content, or where that is damaged by its name."""
    with path.open("rb") as file:
        return file.read(len(parquet.MAGIC)) == parquet.MAGIC or path.suffix.lower() in parquet.SUFFIXES


def _open_file(path: Path, columns: ColumnNames, text: TextFormat) -> Source:
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; give a file with ratings")
        if is_parquet(path):
            return parquet.open_file(path, columns)
        return delimited.open_file(path, columns, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def _compare(first: Source, other: Source, columns: ColumnNames) -> None:
    if first.headed != other.headed:
        headed, bare = (first, other) if first.headed else (other, first)
        raise InputError(
            f"{headed.path} names its columns in its first line, {bare.path} does not; add the line to all files, or "
            "remove it from all"
        )
    if differing := sorted(set(first.found) ^ set(other.found)):
        has, lacks = (first, other) if differing[0] in first.found else (other, first)
        name = getattr(columns, differing[0])
        raise InputError(
            f"{has.path} has a column {name!r}, {lacks.path} has none; files of one input need the same columns: "
            "add it to all or remove it from all"
        )


def _rows_of(path: Path) -> int:
    size = path.stat().st_size
    try:
        if is_parquet(path):
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        with open_bytes(path) as file:
            sample = file.read(_SAMPLE)
            if isinstance(file, gzip.GzipFile) and len(sample) == _SAMPLE:
                size = int(size * _SAMPLE / max(1, file.fileobj.tell()))
            elif len(sample) < _SAMPLE:
                size = len(sample)
    except (OSError, EOFError, zlib.error, pa.ArrowException):
        return 0  # whatever is wrong with it is told where it is read
    return size * max(1, sample.count(b"\n")) // max(1, len(sample))
