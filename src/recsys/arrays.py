"""Names for the arrays that travel between modules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]
"""Positions in a table of ids; -1 stands for an id that is not in the table."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ids = NDArray[np.object_]
"""Raw user or item ids: always text, so that '007' and 7 stay what the file said."""

Array = NDArray[Any]
