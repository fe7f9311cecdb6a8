"""What every engine of matrix factorization begins with and leaves: standardised rows, penalties, and the arrays."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from recsys.data.interactions import Interactions

if TYPE_CHECKING:
    from torch import Tensor

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Counts = TypeVar("Counts", Float32Array, "Tensor")

# Factors start almost at zero, so that only the strongest directions in the ratings grow out of the noise.
# 0.003 instead of 0.01 takes a third as many epochs again and 0.001 to 0.002 off the RMSE on MovieLens 1M.
INITIAL_SCALE = 0.003
# A row seen n times is regularized n * (mean n / n) ** 0.3 times: between a penalty per rating (0, Koren)
# and one per row (1). The exponent is from Rendle et al., "Revisiting the performance of iALS", 2021.
FREQUENCY_EXPONENT = 0.3
ARRAYS = ("user_bias", "item_bias", "user_factors", "item_factors")


@dataclass(frozen=True)
class Factors:
    """A trained model in the unit of the ratings: the arguments of `rating.rating`.

    The weights of the linear layer, where there are any, are multiplied into the user factors. Users and items without
    a training rating have zeros.
    """

    mean: float
    user_bias: Float32Array  # (n_users,)
    item_bias: Float32Array  # (n_items,)
    user_factors: Float32Array  # (n_users, embedding_size)
    item_factors: Float32Array  # (n_items, embedding_size)


def frequency_weights(counts: Counts, mean: float | None = None) -> Counts:
    """(mean n / n) ** FREQUENCY_EXPONENT for rows seen n times; 1 for a row seen as often as the average."""
    average: Any = counts[counts > 0].mean() if mean is None else mean
    weights: Counts = (average / counts.clip(1)) ** FREQUENCY_EXPONENT
    return weights


def standardise(
    interactions: Interactions, mean: float, scale: float, sizes: tuple[int, int], *, unknown: bool
) -> tuple[Int32Array, Int32Array, Float32Array]:
    """Checks the codes and standardises the ratings; gives users, items and ratings, each (n,).

    Args:
        interactions: ratings with codes of users and items.
        mean: of the ratings.
        scale: their standard deviation.
        sizes: numbers of users and items.
        unknown: whether -1 is allowed; it becomes the table's last row, which stands for every unknown one.

    Raises:
        ValueError: a code is outside its table.
    """
    codes = []
    columns = ("users", interactions.users, sizes[0]), ("items", interactions.items, sizes[1])
    for name, column, size in columns:
        lowest = -1 if unknown else 0
        if len(column) and not (lowest <= column.min() and column.max() < size):
            raise ValueError(f"{name} must be codes from {lowest} to {size - 1}, got {column.min()} to {column.max()}")
        codes.append(np.where(column < 0, size, column).astype(np.int32))
    return codes[0], codes[1], ((interactions.ratings - mean) / scale).astype(np.float32)
