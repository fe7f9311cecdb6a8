"""Files: their digests, and writing them so that a reader never sees half of one."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def digest_file(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Replace a file, or make a folder, as a whole: whatever ends this process, `path` holds the old or the new.

    Gives a path beside `path`, at which nothing is yet, to write a file or a folder at. Where the block ends well, what
    was written there is brought to the disk and renamed to `path`; where it raises, it is removed. A process that is
    killed leaves it behind, under the name `.<name of path>.<random>.partial`.

    Raises:
        OSError: if it cannot be written, or `path` is a folder that is not empty.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        publish(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def publish(partial: Path, path: Path) -> None:
    """Bring a file, or a folder with all in it, to the disk, and only then give it its name."""
    if partial.is_dir():
        for inside in partial.rglob("*"):
            sync(inside)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
