"""LensKit: item-based neighbourhoods for implicit feedback, in Rust."""

from typing import Any

import numpy as np
import pandas as pd
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Items that no neighbour speaks for get NaN."""
    table = pd.DataFrame({"user_id": rows.users, "item_id": rows.items, "rating": rows.values})
    model = ItemKNNScorer(**settings, feedback="implicit")
    model.train(from_interactions_df(table))
    every = ItemList(item_ids=np.arange(rows.shape[1]))
    order = np.argsort(rows.users, kind="stable")
    starts = np.searchsorted(rows.users[order], np.arange(rows.shape[0] + 1))

    def score(users: Any) -> Any:
        found = []
        for user in users:
            history = ItemList(item_ids=rows.items[order[starts[user] : starts[user + 1]]])
            found.append(model(RecQuery(user_items=history), every).scores())
        return np.array(found)

    return score
