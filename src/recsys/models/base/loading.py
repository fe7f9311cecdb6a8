"""Loading a recommender of whatever family."""

import json
from pathlib import Path

from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.models.base.lists import load_list_model
from recsys.models.base.recommender import Recommender
from recsys.models.base.storage import DESCRIPTION, FORMAT, load_knowledge


def load_recommender(folder: Path) -> Recommender:
    """Load what `Recommender.save` wrote; raises InputError if it is not there or of another format."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: a saved recommender is expected here, but {error}") from None
    if found != FORMAT:
        raise InputError(f"{path}: format {FORMAT} can be read, got {found}; use the recsys that saved it")
    recommender = family_module(description["family"]).load(folder, load_knowledge(folder, description), description)
    if "lists" in description:
        recommender.lists = load_list_model(folder, description["lists"])
    return recommender
