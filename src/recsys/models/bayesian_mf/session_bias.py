"""The biases of the rating sessions, as a chain samples them.

They are not in sessions.py because a loaded model needs sessions and must not import PyTorch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Codes

START_SESSION_PRECISION = 15.0


@dataclass
class SessionBias:
    """One bias for each of m sessions; n is the number of ratings."""

    of_rating: Tensor  # (n,) the session of each rating; m for none
    users: Tensor  # (m,) the user of each session
    counts: Tensor  # (m,) ratings in each session
    value: Tensor  # (m,)
    expected: Tensor  # (m,) mean of the distribution that `value` was last drawn from
    precision: float  # kappa


def start_session_bias(users: Codes, of_rating: Codes, device: torch.device) -> SessionBias:
    """Biases of 0, for the user of each session, shape (m,), and the session of each rating, shape (n,); m for none."""
    counts = np.bincount(of_rating, minlength=len(users) + 1)[:-1].astype(np.float32)
    of_rating, users = of_rating.astype(np.int64), users.astype(np.int64)
    moved = [torch.from_numpy(array).to(device) for array in (of_rating, users, counts, np.zeros_like(counts))]
    return SessionBias(moved[0], moved[1], moved[2], moved[3], moved[3], START_SESSION_PRECISION)
