"""What cornac's models share: rows in its form, and scores of all items. Found as `models` beside the worker."""

from collections.abc import Callable
from typing import Any

import numpy as np
from cornac.data import Dataset


def fit_and_score(rows: Any, model: Any, seed: int) -> Callable[[Any], Any]:
    """Fit a model to the rows; its scores from users, shape (u,). Users without a row get NaN."""
    triples = list(zip(rows.users.tolist(), rows.items.tolist(), rows.values.tolist(), strict=True))
    data = Dataset.from_uir(triples, seed=seed)
    model.fit(data)
    items = np.array(list(data.iid_map))

    def score(users: Any) -> Any:
        scores = np.full((len(users), rows.shape[1]), np.nan)
        for row, user in enumerate(users.tolist()):
            if user in data.uid_map:
                scores[row, items] = model.score(data.uid_map[user])
        return scores

    return score
