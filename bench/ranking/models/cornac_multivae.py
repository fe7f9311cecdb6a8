"""cornac: the variational autoencoder with a multinomial likelihood (Liang et al. 2018, "Mult-VAE")."""

from typing import Any

import numpy as np
from cornac.data import Dataset
from cornac.models import VAECF


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Every value counts as 1, as the library has it. Users without a row get NaN."""
    triples = list(zip(rows.users.tolist(), rows.items.tolist(), rows.values.tolist(), strict=True))
    data = Dataset.from_uir(triples, seed=seed)
    settings = {**settings, "autoencoder_structure": [settings["hidden"]]}
    del settings["hidden"]
    model = VAECF(**settings, act_fn="tanh", likelihood="mult", seed=seed, use_gpu=False)
    model.fit(data)
    items = np.array(list(data.iid_map))

    def score(users: Any) -> Any:
        scores = np.full((len(users), rows.shape[1]), np.nan)
        for row, user in enumerate(users.tolist()):
            if user in data.uid_map:
                scores[row, items] = model.score(data.uid_map[user])
        return scores

    return score
