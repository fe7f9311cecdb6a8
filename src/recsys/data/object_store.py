"""Datasets in an S3-compatible object store: a bucket that several machines share, each with copies of what it uses.

    <uri>/prepared/<digest>/    manifest.json and the files that it names, as in a folder (recsys.data.dataset)

A bucket has no rename. So the manifest is written last, and a dataset is there once its manifest is. A reader takes the
manifest first, copies the files that it names, and keeps them only if every checksum fits.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as fs

from recsys.data.manifest import FORMAT, NAME, read_manifest
from recsys.errors import InputError
from recsys.runtime.files import write_atomically

SCHEME = "s3://"
_CONNECT_SECONDS, _REQUEST_SECONDS = 5, 60
_ATTEMPTS = 3
_CHUNK = 1 << 23  # bytes copied at a time; the store's own parts are about as large

_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REASONS = {
    "INVALID_ACCESS_KEY_ID": f"the store does not know the access key; {_KEYS}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key does not belong to the access key; {_KEYS}",
    "ACCESS_DENIED": f"the store refuses that to this key; {_KEYS}, and what the key may do in the bucket",
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or correct RECSYS_DATA",
    "NETWORK_CONNECTION": "it does not answer; start it, or correct AWS_ENDPOINT_URL (unset: Amazon's own)",
}


class _RefusedError(InputError):
    """What the key that was given may not do."""


class ObjectStore:
    """The datasets below one address. Its methods raise InputError, with what to do, where the store refuses."""

    def __init__(self, uri: str, *, endpoint: str | None = None, region: str | None = None) -> None:
        """Take the address; nothing is asked of the store yet. Keys come as AWS's own tools find them.

        Args:
            uri: s3://bucket or s3://bucket/prefix.
            endpoint: http://host:port of a store that is not Amazon's.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]+", parts.netloc) or parts.query:
            raise InputError(
                f"RECSYS_DATA: s3://bucket or s3://bucket/prefix is needed, the bucket in lower case, got {uri!r}"
            )
        if endpoint and not re.fullmatch(r"https?://[^/@]+/?", endpoint):
            raise InputError(f"AWS_ENDPOINT_URL: an address such as http://host:8333 is needed, got {endpoint!r}")
        self.uri = uri.rstrip("/")
        self.endpoint = endpoint
        self._root = "/".join(part for part in (parts.netloc, parts.path.strip("/"), "prepared") if part)
        where: dict[str, str] = {"region": region} if region else {}
        if endpoint:
            scheme, _, host = endpoint.rstrip("/").partition("://")
            where |= {"endpoint_override": host, "scheme": scheme, "region": region or "us-east-1"}
        self._files = fs.S3FileSystem(
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            **where,
        )

    def check(self) -> None:
        """Write an object, read it and delete it."""
        key, content = f"{self._root}/.probe-{secrets.token_hex(8)}", b"written to see whether it can be read"
        with self._explained("writing"):
            self._write(key, content)
        with self._explained("reading"):
            found = self._read(key)
        with self._explained("deleting"):
            self._files.delete_file(key)
        if found != content:
            raise self._altered(len(content), len(found))

    def times(self) -> dict[str, datetime]:
        """When each dataset was written, or asked for by prepare, last; by digest."""
        with self._explained("listing"):
            inside = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
            digests = [info.base_name for info in inside if re.fullmatch("[0-9a-f]{8,}", info.base_name)]
            manifests = self._files.get_file_info([f"{self._root}/{digest}/{NAME}" for digest in digests])
        found = zip(digests, manifests, strict=True)
        return {digest: info.mtime or datetime.now(UTC) for digest, info in found if info.is_file}

    def read_manifest(self, digest: str) -> dict[str, Any] | None:
        """The manifest of a dataset; None where there is none, or one that this version of recsys cannot read."""
        with self._explained("reading"):
            try:
                content = json.loads(self._read(f"{self._root}/{digest}/{NAME}"))
            except FileNotFoundError:
                return None
            except ValueError:
                return None
        return content if isinstance(content, dict) and content.get("format") == FORMAT else None

    def publish(self, folder: Path) -> str:
        """Copy a dataset from its folder, the manifest last; one that is there already becomes the newest.

        Returns where it is. A key that may only read is enough for one that is there: its time stays then.
        Whoever ends this in the middle leaves files that no manifest names: the next call writes them anew.
        """
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        at, place = f"{self._root}/{manifest['digest']}", f"{self.uri}/prepared/{manifest['digest']}"
        there = self._sizes(at)
        if NAME in there and set(manifest["files"]) <= set(there):
            with suppress(_RefusedError), self._explained("writing"):
                self._write(f"{at}/{NAME}", self._read(f"{at}/{NAME}"))
            return place
        with self._explained("writing"):
            for name in manifest["files"]:
                with (folder / name).open("rb") as source, self._files.open_output_stream(f"{at}/{name}") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
        arrived = self._sizes(at)
        for name in manifest["files"]:
            sent = (folder / name).stat().st_size
            if arrived.get(name) != sent:
                raise self._altered(sent, arrived.get(name, 0))
        with self._explained("writing"):
            self._write(f"{at}/{NAME}", (folder / NAME).read_bytes())
        return place

    def fetch(self, digest: str, folder: Path) -> bool:
        """Copy a dataset into `folder`, as prepare would have written it there; False where the store has none.

        Raises:
            InputError: also if a file is missing or another than the manifest names, or the disk is full. Nothing is
                left behind then.
        """
        manifest = self.read_manifest(digest)
        if manifest is None:
            return False
        at, names = f"{self._root}/{digest}", [str(name) for name in manifest["files"]]
        if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names):
            raise InputError(f"{self.uri}/prepared/{digest}: {NAME} names files outside the dataset; delete it")
        there = self._sizes(at)
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = sum(there.get(name, 0) for name in names), shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"{folder}: a copy of dataset {digest[:12]} takes {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} are "
                "free; make room, or set RECSYS_DATA_CACHE to a folder on a larger disk"
            )
        try:
            with write_atomically(folder / digest) as partial:
                self._copy(at, [*names, NAME], partial)
                try:
                    read_manifest(partial)
                except InputError as error:
                    raise InputError(str(error).replace(str(partial), f"{self.uri}/prepared/{digest}")) from None
        except OSError:
            if not (folder / digest).exists():  # else another process copied it meanwhile
                raise
        return True

    def _copy(self, at: str, names: list[str], folder: Path) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with (
                    self._explained("reading"),
                    self._files.open_input_stream(f"{at}/{name}") as source,
                    path.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target, _CHUNK)
            except FileNotFoundError:
                continue  # told with its name where the manifest is checked

    def _sizes(self, at: str) -> dict[str, int]:
        with self._explained("listing"):
            found = self._files.get_file_info(fs.FileSelector(at, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{at}/"): int(info.size) for info in found if info.is_file}

    def _write(self, key: str, content: bytes) -> None:
        with self._files.open_output_stream(key) as target:
            target.write(content)

    def _read(self, key: str) -> bytes:
        with self._files.open_input_stream(key) as source:
            return bytes(source.read())

    def _altered(self, sent: int, kept: int) -> InputError:
        return InputError(
            f"{self.uri}: {sent:,} bytes were sent, the store has {kept:,}; one that does not know the checksums which "
            "newer clients send keeps them as content: export AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
        )

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn what the store answers into one sentence. A missing object and a full disk stay what they are."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            text = " ".join(str(error).split())
            code = re.search(r"AWS Error (\w+)", text)
            if code is None:
                raise
            reason = _REASONS.get(code[1], f"{text[:300]}; see what the store's own log says")
            place = f" at {self.endpoint}" if self.endpoint else ""
            kind = _RefusedError if code[1] == "ACCESS_DENIED" else InputError
            raise kind(f"{self.uri}{place}: {doing} failed: {reason}") from None


def copies_folder(uri: str, endpoint: str | None, cache: Path) -> Path:
    """The folder of this machine for copies of an object store: one for each store."""
    import hashlib

    store = hashlib.blake2b(f"{endpoint or ''} {uri.rstrip('/')}".encode(), digest_size=4).hexdigest()
    return cache / f"{urlsplit(uri).netloc}-{store}"


def set_time(folder: Path, moment: datetime) -> None:
    """Give a copy the time of its dataset in the store, by which the newest is found."""
    os.utime(folder, (moment.timestamp(), moment.timestamp()))
