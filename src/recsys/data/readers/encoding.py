"""Text in other encodings than UTF-8, read as UTF-8."""

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import BinaryIO, cast

from recsys.data.readers.source import shorten
from recsys.errors import InputError

UTF_8 = "utf-8"
_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_MAGIC = {rb"BZh[1-9]1AY&SY": "bzip2", rb"\xfd7zXZ\0": "xz", rb"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CHUNK = 1 << 20  # bytes


def find_encoding(path: Path, given: str) -> str:
    """The name of the encoding: the one given, or UTF-16 where the file begins with its mark, else UTF-8.

    Raises:
        InputError: if there is none of that name, a name ends in .gz and the file is none, or it is packed otherwise.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for magic, packer in _OTHER_MAGIC.items():
        if re.match(magic, head, re.DOTALL):
            raise InputError(
                f"{path}: expected text, plain or gzipped, got a file packed by {packer}; unpack it, or use gzip for it"
            )
    if path.suffix == ".gz" and not head.startswith(_GZIP_MAGIC):
        raise InputError(f"{path}: not a gzip file, despite its name; rename it or compress it")
    if given != "auto":
        return check_encoding(given)
    with open_bytes(path) as source:
        return _MARKS.get(source.read(2), UTF_8)


def check_encoding(name: str) -> str:
    """Python's name of an encoding of text; raises InputError where it knows none."""
    try:
        found = codecs.lookup(name)
        "".encode(found.name)
    except (LookupError, ValueError):
        raise InputError(
            f"parameter 'encoding': auto or an encoding such as utf-8, latin-1, cp1252 or utf-16 is needed, got "
            f"{name!r}"
        ) from None
    return found.name


def open_bytes(path: Path, encoding: str = UTF_8) -> BinaryIO:
    """The file's bytes in UTF-8, unzipped where it is gzipped; what is said to be UTF-8 is handed on as it stands."""
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if encoding == UTF_8:
        return cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb")
    raw = _Recoded(open_bytes(path), path, encoding)
    return cast(BinaryIO, io.BufferedReader(raw, _CHUNK))


class _Recoded(io.RawIOBase):
    """`source`, which is in another encoding, in UTF-8."""

    def __init__(self, source: BinaryIO, path: Path, encoding: str) -> None:
        self._source, self._path, self._encoding = source, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._lines, self._ready = 1, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._source.read(_CHUNK)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                raise InputError(
                    f"{self._path}: expected {self._encoding} text, and from line {self._lines} on it is none "
                    f"({shorten(error)}); pass the file's own encoding with -P encoding=<name>"
                ) from None
            if not chunk and not text:
                return 0
            self._lines += text.count("\n")
            self._ready = text.encode()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()
