"""scikit-surprise: SVD and SVD++, by stochastic gradient descent in Cython."""

from typing import Any

import numpy as np
import surprise


def load(rows: Any) -> Any:
    """A Trainset."""
    dataset = surprise.Dataset(surprise.Reader(rating_scale=tuple(rows.scale)))
    columns = (rows.users.tolist(), rows.items.tolist(), rows.ratings.tolist())
    return dataset.construct_trainset([(*row, None) for row in zip(*columns, strict=True)])


def fit(data: Any, settings: dict[str, Any], seed: int) -> Any:
    """Unknown users and items get the mean and the bias that is known, which is the library's own fallback."""
    settings = dict(settings)
    model = getattr(surprise, settings.pop("algorithm"))(random_state=seed, **settings).fit(data)

    def predict(rows: Any) -> Any:
        pairs = zip(rows.users.tolist(), rows.items.tolist(), strict=True)
        return np.fromiter((model.predict(user, item).est for user, item in pairs), np.float64)

    return predict
