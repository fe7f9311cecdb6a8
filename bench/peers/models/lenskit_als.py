"""LensKit: BiasedMF, by alternating least squares in Rust."""

from typing import Any

import numpy as np
import pandas as pd
from lenskit.als import BiasedMFScorer
from lenskit.data import ItemList, from_interactions_df
from lenskit.training import TrainingOptions


def load(rows: Any) -> Any:
    """A LensKit Dataset."""
    return from_interactions_df(pd.DataFrame({"user_id": rows.users, "item_id": rows.items, "rating": rows.ratings}))


def fit(data: Any, settings: dict[str, Any], seed: int) -> Any:
    """Unknown users and items get NaN: the scorer leaves them to another component."""
    model = BiasedMFScorer(**settings)
    model.train(data, TrainingOptions(rng=seed))

    def predict(rows: Any) -> Any:
        rating = np.full(len(rows.users), np.nan)
        order = np.argsort(rows.users, kind="stable")
        users, first = np.unique(rows.users[order], return_index=True)
        for user, of_user in zip(users.tolist(), np.split(order, first[1:]), strict=True):
            rating[of_user] = model(user, ItemList(item_ids=rows.items[of_user])).scores()
        return rating

    return predict
