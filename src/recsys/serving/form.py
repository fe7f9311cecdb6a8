"""The served form of a version: NumPy arrays that all workers map from the same files, and a JSON about them.

It is made once for a version (recsys.serving.compact). Opening it needs NumPy only and reads next to nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Array
from recsys.errors import InputError
from recsys.runtime.files import digest_file, write_atomically
from recsys.serving.ids import IdTable

FORMAT = 5
DESCRIPTION = "form.json"


@dataclass(frozen=True, eq=False)
class Arrays:
    """All that a list or a score is computed from. Users and items are codes: positions among their sorted ids."""

    user_ids: Array  # (bytes,) uint8, the ids in UTF-8 one behind the other, sorted
    user_id_ends: Array  # (n_users + 1,) int64, where each begins; the last is where the last ends
    item_ids: Array
    item_id_ends: Array
    titles: Array  # (bytes,) uint8, what the items are called, in UTF-8 one behind the other by code; may be empty
    title_ends: Array  # (n_items + 1,) int64
    user_factors: Array  # (n_users, r) float16
    item_factors: Array  # (n_items, r) float32
    user_bias: Array  # (n_users,) float32, with the mean
    item_bias: Array  # (n_items,) float32
    user_variance: Array  # (n_users,) float32
    item_variance: Array  # (n_items,) float32
    user_fallback: Array  # (n_users,) float32, with the mean: the bias that counts beside an unknown item
    item_fallback: Array  # (n_items,) float32
    history_ends: Array  # (n_users + 1,) int64
    history_items: Array  # (n_ratings,) int32, ascending for a user
    history_values: Array  # (n_ratings,) float16 or float32: the rating, NaN where it is not known
    history_newer: Array  # (n_ratings,) int32: how many of the user's are newer; (0,) where age does not count
    weight_starts: Array  # (n_items + 1,) int64: where the weights of an item begin
    neighbours: Array  # (m,) int32: the items to whose scores a rating of this item adds, ascending for an item
    weights: Array  # (m,) float32: how much
    popularity: Array  # (n_items,) float32: how many rated it
    most_popular: Array  # (n_items,) int32: the items by it, the most popular first


@dataclass(frozen=True, eq=False)
class Form:
    """A form that is open. `about` is what form.json says: version, family, scale, link, loss, probe."""

    folder: Path
    about: Mapping[str, Any]
    arrays: Arrays
    users: IdTable
    items: IdTable
    titles: IdTable

    @property
    def label(self) -> str:
        """The version, as answers name it."""
        return str(self.about["version"])


def write_form(folder: Path, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> Path:
    """Write a form beside its place and move it there in one step; a form that is there stays.

    Args:
        folder: where it is to be.
        arrays: by the names of `Arrays`.
        about: the rest of form.json.
    """
    try:
        with write_atomically(folder) as aside:
            aside.mkdir(parents=True)
            digests = {}
            for name in (field.name for field in fields(Arrays)):
                path = aside / f"{name}.npy"
                np.save(path, np.ascontiguousarray(arrays[name]), allow_pickle=False)
                digests[name] = {"digest": digest_file(path), "bytes": path.stat().st_size}
            description = {"format": FORMAT, **about, "arrays": digests}
            (aside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    except OSError:
        if not (folder / DESCRIPTION).exists():  # else somebody else made it meanwhile
            raise
    return folder


def read_description(folder: Path) -> dict[str, Any]:
    """What form.json says; raises InputError where there is none or it is of another format."""
    path = folder / DESCRIPTION
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the served form of a version is expected here, but {error}") from None
    if found != FORMAT:
        raise InputError(f"{path}: format {FORMAT} can be read, got {found}; delete the folder, it is made again")
    return about


def open_form(folder: Path, *, verify: bool = False) -> Form:
    """Map a form from its files.

    Args:
        verify: read every file and compare its digest; else sizes are compared only.

    Raises:
        InputError: naming the file that is missing, of another size or changed.
    """
    about = read_description(folder)
    found = {}
    for field in fields(Arrays):
        path = folder / f"{field.name}.npy"
        try:
            said = about["arrays"][field.name]
            size = path.stat().st_size
            if size != said["bytes"]:
                raise InputError(f"{path}: {said['bytes']:,} bytes are expected, got {size:,}; delete its folder")
            if verify and digest_file(path) != said["digest"]:
                raise InputError(f"{path}: its content is not what was written; delete its folder, it is made again")
            found[field.name] = np.load(path, mmap_mode="r" if size > _HEADER else None, allow_pickle=False)
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: an array of a served form is expected here, but {error}") from None
    arrays = Arrays(**{name: np.asarray(array) for name, array in found.items()})  # memmap's own indexing is slow
    return Form(
        folder,
        about,
        arrays,
        IdTable(arrays.user_ids, arrays.user_id_ends),
        IdTable(arrays.item_ids, arrays.item_id_ends),
        IdTable(arrays.titles, arrays.title_ends),
    )


_HEADER = 128  # bytes of a file of an empty array, which cannot be mapped
