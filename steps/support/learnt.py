"""Which versions of a model learnt from a person, and which from a file of ratings."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsys.data.dataset import digest_source
from recsys.data.preparation import Preparation
from recsys.data.readers.files import find_files
from recsys.errors import InputError
from recsys.settings import parse_settings
from steps.support.provenance import Provenance, read_provenance

if TYPE_CHECKING:
    from registry.versions import Version


def learnt_from_user(versions: "Sequence[Version]", user: str) -> "tuple[list[Version], dict[int, str]]":
    """The versions that know a user, and of those of which it cannot be said, by number why."""
    from registry import integrity

    learnt, unread = [], {}
    for version in versions:
        try:
            known = integrity.load_version(version).knowledge.user_codes(np.array([user], object))
        except InputError as error:
            unread[version.number] = str(error)
            continue
        if known[0] >= 0:
            learnt.append(version)
    return learnt, unread


def learnt_from_file(
    versions: "Sequence[Version]", source: Path
) -> "tuple[list[Version], list[Version], dict[int, str]]":
    """The versions that learnt from ratings as they are now, those from other content of that place, and the unknown.

    Raises:
        InputError: if there are no ratings there.
    """
    files, place = find_files(source), str(source)
    digests: dict[str, str] = {}
    now, before, unread = [], [], {}
    for version in versions:
        try:
            made = provenance_of(version)
            preparation = preparation_of(made)
        except InputError as error:
            unread[version.number] = str(error)
            continue
        recipe = preparation.model_copy(update={"ratings": place}).model_dump_json()
        if recipe not in digests:  # versions of one recipe read the file once
            digests[recipe] = digest_source(files, preparation)
        if digests[recipe] == version.tags.get("data_version"):
            now.append(version)
        elif made.ratings == place:
            before.append(version)
    return now, before, unread


def provenance_of(version: "Version") -> Provenance:
    """How a version was made; raises InputError if it does not say, or its statement was altered."""
    from registry import integrity

    with tempfile.TemporaryDirectory() as folder:
        return read_provenance(integrity.fetch_statement(version, Path(folder)))


def preparation_of(made: Provenance) -> Preparation:
    """The parameters that made a version's dataset; raises InputError where this release does not know one."""
    given = {name: value for name, value in made.given.items() if name in Preparation.model_fields}
    return parse_settings(Preparation, given)
