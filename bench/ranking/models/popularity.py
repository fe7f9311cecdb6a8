"""Everybody gets what has most."""

from typing import Any

import numpy as np


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """The sum of each item's values."""
    popular = np.bincount(rows.items, rows.values, minlength=rows.shape[1])
    return lambda users: np.tile(popular, (len(users), 1))
