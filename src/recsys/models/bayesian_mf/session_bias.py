"""A bias of every run of a user's ratings (recsys.runs), as a chain samples it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Codes

START_RUN_PRECISION = 15.0


@dataclass
class RunBias:
    """A bias of every run of a user's ratings."""

    of_rating: Tensor  # (n,) the run of each rating
    users: Tensor  # (m,) whose the run is
    counts: Tensor  # (m,)
    value: Tensor  # (m,)
    expected: Tensor  # (m,) the mean that the value was last drawn around
    precision: float  # kappa


def start_run_bias(users: Codes, of_rating: Codes, device: torch.device) -> RunBias:
    """No bias yet, given the user of each run, (m,), and the run of every rating, (n,)."""
    counts = np.bincount(of_rating, minlength=len(users)).astype(np.float32)
    of_rating, users = of_rating.astype(np.int64), users.astype(np.int64)
    moved = [torch.from_numpy(array).to(device) for array in (of_rating, users, counts, np.zeros_like(counts))]
    return RunBias(moved[0], moved[1], moved[2], moved[3], moved[3], START_RUN_PRECISION)
