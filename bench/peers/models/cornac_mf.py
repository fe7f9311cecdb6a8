"""cornac: MF with biases, by stochastic gradient descent in Cython on all cores."""

from typing import Any

import numpy as np
from cornac.data import Dataset
from cornac.models import MF


def load(rows: Any) -> Any:
    """A cornac Dataset, of the columns as they are: its own `from_uir` takes a tuple a row."""
    (users, of_user), (items, of_item) = (np.unique(side, return_inverse=True) for side in (rows.users, rows.items))
    maps = ({id_: code for code, id_ in enumerate(ids.tolist())} for ids in (users, items))
    return Dataset(len(users), len(items), *maps, (of_user, of_item, rows.ratings.astype(float)))


def fit(data: Any, settings: dict[str, Any], seed: int) -> Any:
    """The start is drawn here as MF draws it, since MF with a seed runs on one core only.

    Unknown users get the item's bias, unknown items the mean, which is the library's own fallback.
    """
    rng, k = np.random.default_rng(seed), settings["k"]
    start = {
        name: rng.normal(0, 0.01, (n, k)).astype(np.float32)
        for name, n in (("U", data.num_users), ("V", data.num_items))
    }
    model = MF(init_params=start, **settings).fit(data)

    def predict(rows: Any) -> Any:
        users = (data.uid_map.get(user, data.num_users) for user in rows.users.tolist())
        items = (data.iid_map.get(item, data.num_items) for item in rows.items.tolist())
        return np.fromiter((model.rate(user, item) for user, item in zip(users, items, strict=True)), np.float64)

    return predict
