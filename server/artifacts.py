"""Pack the server's artifacts into a tar on standard output, or unpack one from standard input.

They lie where MLFLOW_ARTIFACTS_DESTINATION says: a folder or s3://bucket/prefix. With `datasets` behind the verb, it is
the prepared datasets of the object store that RECSYS_DATA names; where that is none, there are no files.

    python server/artifacts.py count | pack | unpack [datasets]
"""

import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

_STAGING = ".unpacking-"


class Artifacts(Protocol):
    """A place of files, by their paths in it."""

    def paths(self) -> Iterator[str]:
        """The paths of all files."""

    def read(self, path: str, into: IO[bytes]) -> None:
        """Copy a file."""

    def write(self, path: str, source: IO[bytes]) -> None:
        """Make or replace a file."""


class Folder:
    """Artifacts on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> Iterator[str]:
        """The paths of all files."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.relative_to(self.folder).parts[0].startswith(_STAGING):
                yield path.relative_to(self.folder).as_posix()

    def read(self, path: str, into: IO[bytes]) -> None:
        """Copy a file."""
        with (self.folder / path).open("rb") as file:
            shutil.copyfileobj(file, into)

    def write(self, path: str, source: IO[bytes]) -> None:
        """Make or replace a file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(source, file)


class Bucket:
    """Artifacts in an S3-compatible store."""

    def __init__(self, uri: str, endpoint: str | None) -> None:
        import boto3

        parts = urlsplit(uri)
        self.bucket, prefix = parts.netloc, parts.path.strip("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.client: Any = boto3.client("s3", endpoint_url=endpoint)

    def paths(self) -> Iterator[str]:
        """The paths of all objects below the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        for page in pages:
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # what some clients write in place of a folder
                    yield item["Key"].removeprefix(self.prefix)

    def read(self, path: str, into: IO[bytes]) -> None:
        """Copy an object."""
        self.client.download_fileobj(self.bucket, self.prefix + path, into)

    def write(self, path: str, source: IO[bytes]) -> None:
        """Make or replace an object."""
        self.client.upload_fileobj(source, self.bucket, self.prefix + path)


def artifacts(destination: str) -> Artifacts:
    """The artifacts at a destination."""
    if destination.startswith("s3://"):
        return Bucket(destination, os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
    return Folder(Path(destination.removeprefix("file://")))


def datasets() -> Artifacts | None:
    """The datasets in the object store that RECSYS_DATA names; None where they are kept in a folder."""
    uri = os.environ.get("RECSYS_DATA", "")
    if not uri.startswith("s3://"):
        return None
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return Bucket(f"{uri.rstrip('/')}/prepared", endpoint)


def pack(place: Artifacts, into: IO[bytes]) -> int:
    """Write all files as a tar; their number."""
    packed = 0
    with tarfile.open(fileobj=into, mode="w|") as archive:
        # A dataset's manifest last: readers take a dataset for whole once that is there.
        for path in sorted(place.paths(), key=lambda path: path.endswith("/manifest.json")):
            with tempfile.SpooledTemporaryFile(max_size=1 << 24) as content:
                place.read(path, content)
                member = tarfile.TarInfo(path)
                member.size = content.tell()
                content.seek(0)
                archive.addfile(member, content)
            packed += 1
    return packed


def unpack(place: Artifacts, source: IO[bytes]) -> int:
    """Read a tar; the number of files. A path that leaves the destination is refused."""
    return _unpack_beside(place, source) if isinstance(place, Folder) else _extract(place, source)


def _extract(place: Artifacts, source: IO[bytes]) -> int:
    unpacked = 0
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            path = Path(member.name)
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{member.name}: a file inside the destination is needed")
            place.write(member.name, io.BytesIO(content.read()) if isinstance(place, Bucket) else content)
            unpacked += 1
    return unpacked


def _unpack_beside(place: Folder, source: IO[bytes]) -> int:
    """Unpack within the folder under a name of its own, and move the files to their places once all are there.

    A disk that is full by then, or a tar that ends early, changes nothing.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    for left in place.folder.glob(f"{_STAGING}*"):
        shutil.rmtree(left)  # of an unpacking that was killed
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=place.folder))
    try:
        _extract(Folder(staging), source)
        unpacked = 0
        for path in Folder(staging).paths():
            target = place.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(target)
            unpacked += 1
        return unpacked
    finally:
        shutil.rmtree(staging, ignore_errors=True)


if __name__ == "__main__":
    verb, what = [*sys.argv[1:], "", ""][:2]
    given = os.environ.get("RECSYS_DATA" if what else "MLFLOW_ARTIFACTS_DESTINATION", "")
    if verb not in ("count", "pack", "unpack") or what not in ("", "datasets") or not (given or what):
        sys.exit(__doc__)
    try:
        found = datasets() if what else artifacts(given)
        if found is None and verb != "count":
            sys.exit("error: artifacts: RECSYS_DATA=s3://bucket/prefix is needed, the object store of the datasets")
        if found is None:
            print(0)
            sys.exit()
        store = found
        if verb == "count":
            print(sum(1 for _ in store.paths()))
        else:
            done = pack(store, sys.stdout.buffer) if verb == "pack" else unpack(store, sys.stdin.buffer)
            print(f"{verb}ed {done} {(what and 'files of datasets') or 'artifacts'}, {given}", file=sys.stderr)
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.exit(f"error: artifacts: {error}")
