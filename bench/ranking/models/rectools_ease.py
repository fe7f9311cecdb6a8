"""RecTools: EASE (Steck 2019)."""

from typing import Any

import numpy as np
import pandas as pd
from rectools.dataset import Dataset
from rectools.models import EASEModel
from scipy.sparse import csr_matrix


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Scores are the user's row times the model's weights, as its own `recommend` computes them."""
    table = pd.DataFrame({"user_id": rows.users, "item_id": rows.items, "weight": rows.values})
    data = Dataset.construct(table.assign(datetime=pd.Timestamp(0)))
    model = EASEModel(**settings)
    model.fit(data)
    items = np.asarray(data.item_id_map.convert_to_external(np.arange(len(data.item_id_map.external_ids))))
    matrix = csr_matrix((rows.values, (rows.users, rows.items)), rows.shape)

    def score(users: Any) -> Any:
        scores = np.full((len(users), rows.shape[1]), -np.inf)
        scores[:, items] = matrix[users][:, items] @ model.weight
        return scores

    return score
