"""The files of a version: their digests, stated beside them, and what differs from that.

The statement is an in-toto statement with a predicate of SLSA's provenance, as tools for supply chains read it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import InputError

STATEMENT = "provenance.json"
SIGNATURE = "model.sig"  # over the statement and all files, where there was a key to sign with
MADE_BY_LOADING = "registered_model_meta"
_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
# What is no file of the version: what is stated of it, and what MLflow and Python put beside files that they load.
_BESIDE = (STATEMENT, SIGNATURE, MADE_BY_LOADING)
_COMPILED = "__pycache__"
_MOST_NAMED = 5


def digest_folder(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a version, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and below.as_posix() not in _BESIDE and _COMPILED not in below.parts:
            with path.open("rb") as file:
                found[below.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write_statement(folder: Path, predicate: Mapping[str, Any]) -> str:
    """State the digests of all files of a folder, and how they were made; returns the digest of the statement."""
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in digest_folder(folder).items()]
    content = {"_type": _TYPE, "subject": subjects, "predicateType": _PREDICATE_TYPE, "predicate": predicate}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (folder / STATEMENT).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def check_statement(content: bytes, digest: str) -> None:
    """Raise InputError where a statement is not the one of a digest."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"its {STATEMENT} is not the one that was registered with it")


def check_folder(folder: Path, statement: str | None = None) -> int:
    """Compare the files of a folder with what is stated of them; returns their number.

    Args:
        statement: the digest that the statement itself must have; None: it is not checked.

    Raises:
        InputError: naming the files that differ.
    """
    path = folder / STATEMENT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"its {STATEMENT}, which states the digests of its files, is missing") from None
    if statement is not None:
        check_statement(content, statement)
    try:
        stated = {subject["name"]: subject["digest"]["sha256"] for subject in json.loads(content)["subject"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"its {STATEMENT} is no statement of digests ({type(error).__name__}: {error})") from None
    found = digest_folder(folder)
    wrong = [f"{name} is missing" for name in stated.keys() - found.keys()]
    wrong += [f"{name} was added" for name in found.keys() - stated.keys()]
    wrong += [f"{name} was altered" for name in stated.keys() & found.keys() if stated[name] != found[name]]
    if wrong:
        more = f", and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise InputError(f"{', '.join(sorted(wrong)[:_MOST_NAMED])}{more}")
    return len(found)
