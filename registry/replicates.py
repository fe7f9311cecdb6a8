"""Bootstrap replicates as text: the form in which the documents of a version carry them."""

import base64
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Floats


@dataclass(frozen=True, eq=False)
class ListReplicates:
    """Arrays of shape (replicates,): nDCG@10, and how much it is above that of what is popular."""

    ndcg: Floats
    gain: Floats


def pack(values: Floats, middle: float) -> str:
    """The deviations of the values from what they vary around, in half precision."""
    return base64.b64encode((values - middle).astype("<f2").tobytes()).decode()


def unpack(packed: str, middle: float) -> Floats:
    """The values that `pack` was given, to about 1e-5 where they lie close to the middle."""
    return middle + np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float64)


def pack_lists(found: ListReplicates) -> list[str]:
    """Replicates of lists, to about 1e-4: of each array its middle and the deviations from it."""
    return [_with_middle(found.ndcg), _with_middle(found.gain)]


def unpack_lists(packed: list[str]) -> ListReplicates:
    """What `pack_lists` was given."""
    return ListReplicates(*(_from_middle(text) for text in packed))


def _with_middle(values: Floats) -> str:
    middle = float(np.nan_to_num(np.nanmean(values)))
    return f"{middle!r},{pack(values, middle)}"


def _from_middle(packed: str) -> Floats:
    middle, deviations = packed.split(",")
    return unpack(deviations, float(middle))
