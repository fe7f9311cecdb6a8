"""Bootstrap replicates as text: the form in which the tags of a version carry them."""

import base64
from collections.abc import Mapping

import numpy as np

from recsys.arrays import Floats

KEPT = 3  # test sets whose replicates a version carries: 11 kB each, read with every list of versions


def pack(values: Floats, middle: float) -> str:
    """The deviations of the values from what they vary around, in half precision."""
    return base64.b64encode((values - middle).astype("<f2").tobytes()).decode()


def unpack(packed: str, middle: float) -> Floats:
    """The values that `pack` was given, to about 1e-5 where they lie close to the middle."""
    return middle + np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float64)


def stale_keys(tags: Mapping[str, str], prefix: str, key: str) -> list[str]:
    """The tags of a prefix to delete once `key` is written, so that the newest few test sets keep theirs.

    Their values begin with the time at which they were written.
    """
    others = [name for name in tags if name.startswith(prefix) and name != key]
    return sorted(others, key=tags.__getitem__, reverse=True)[KEPT - 1 :]
