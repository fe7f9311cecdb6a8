"""The manifest of a dataset's folder: what made it, and the checksums by which every use notices a change."""

import hashlib
import json
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.runtime.files import digest_file

FORMAT = 2  # from 2 on, a part is a folder of files
NAME = "manifest.json"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a folder, adding to `content` the checksums of the other files and of itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content["files"] = {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
    content["checksum"] = _digest(content)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest; raises InputError where it, or a file it names, is not as it was written."""
    try:
        content: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        found, checksum, files = content["format"], content["checksum"], dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, f"{NAME} is missing or cannot be read ({error})") from None
    if found != FORMAT:
        raise _broken(folder, f"has format {found}, this version of recsys reads format {FORMAT}")
    if _digest(content) != checksum:
        raise _broken(folder, f"{NAME} is not what prepare wrote")
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise _broken(folder, f"{name} is missing")
        if digest_file(folder / name) != digest:
            raise _broken(folder, f"{name} is not what prepare wrote")
    return content


def find_format(folder: Path) -> int | None:
    """The format that a folder's manifest names, or None where it cannot be read."""
    try:
        return int(json.loads((folder / NAME).read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()


def _broken(folder: Path, problem: str) -> InputError:
    return InputError(
        f"dataset {folder}: {problem}; delete that folder and run the entry point prepare again, which makes it anew"
    )
