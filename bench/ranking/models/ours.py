"""A family of ours with its lists: it chooses by the validation rows, then learns from both, as `train` does."""

from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.dataset import Dataset
from recsys.data.features import learn_features
from recsys.data.interactions import Interactions
from recsys.models.base.family import family_module
from recsys.training.trainer import train


def lists(rows: Any, validation: Any, settings: dict[str, Any], seed: int, users: Any, k: int) -> Any:
    """Item codes of shape (u, k), -1 where a list is shorter."""
    known, held = (Interactions(part.users, part.items, part.ratings, part.timestamps) for part in (rows, validation))
    width = len(str(max(rows.shape)))
    user_ids, item_ids = (np.array([f"{code:0{width}}" for code in range(n)], object) for n in rows.shape)
    features = learn_features(known.users, known.items, known.ratings, *rows.shape)
    every = np.r_[known.ratings, held.ratings]
    manifest = {"scale": [every.min(), every.max()], "preparation": {"like_threshold": rows.relevant}}
    parts = {"train": known, "validation": held, "test": held[:0]}
    data = Dataset(Path(), manifest, user_ids, item_ids, features, held=parts)
    module = family_module(settings["family"])
    model = train(settings["family"], data, module.Config(), seed=seed).final
    assert model.lists is not None
    print(model.lists.regression, "exponent", model.lists.exponent)
    found = np.full((len(users), k), -1)
    for row, items in enumerate(model.recommend(user_ids[users], k).items):
        found[row, : len(items)] = items.astype(int)
    return found
