"""The biases of the rating sessions, as a chain samples them.

They are not in sessions.py because a loaded model needs sessions and must not import PyTorch.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Array, Codes
from recsys.models.bayesian_mf.priors import draw_bias_stretch, draw_gamma

START_SESSION_PRECISION = 60.0
LEVELS, TOGETHER = 4, 3  # sessions, groups of so many of a user's sessions in a row, groups of these


@dataclass
class Level:
    """The biases of g groups of sessions; a group is a session, or some of a user's sessions in a row."""

    of_session: Tensor  # (m,) the group of each session; g for none
    users: Tensor  # (g,) the user of each group
    counts: Tensor  # (g,) ratings in each group
    value: Tensor  # (g,)
    precision: float  # kappa


@dataclass
class SessionBias:
    """One bias for each of m sessions, which is the sum of those of its groups; n is the number of ratings."""

    of_rating: Tensor  # (n,) the session of each rating; m for none
    counts: Tensor  # (m,) ratings in each session
    levels: list[Level]  # the sessions themselves, then larger and larger groups
    value: Tensor  # (m,)
    expected: Tensor  # (m,) `value`, with the mean of the distribution that the session's own part was drawn from

    def fork(self) -> Self:
        """Biases in the same state, to be drawn apart from these."""
        return replace(self, levels=list(self.levels))

    def draw(
        self,
        left: Tensor,
        weight: Tensor,
        generator: torch.Generator | None,
        noise_generator: torch.Generator,
    ) -> None:
        """Draw the biases of each level given the others, the largest groups first, and each level's precision.

        Args:
            left: sum of the ratings in each session, less all that predicts them, these biases too, (m,).
            weight: precision of each user's ratings, (n_users,).
            generator: of single numbers, on the CPU. None: biases are set to their means, at fixed precisions.
            noise_generator: of tables.
        """
        for number in reversed(range(len(self.levels))):
            level = self.levels[number]
            by = weight.index_select(0, level.users)
            total = _padded(torch.zeros_like(level.value)).index_add_(0, level.of_session, left)[:-1]
            right = by * (total + level.counts * level.value)
            precision = by * level.counts + level.precision
            value = mean = right / precision
            kappa = level.precision
            if generator is not None:
                noise = torch.randn(len(mean), generator=noise_generator, device=mean.device)
                value = mean + noise / precision.sqrt()
                shape, rate = torch.tensor(1 + len(mean) / 2), 1 + value.square().sum().cpu() / 2
                kappa = float(draw_gamma(shape, rate, generator))
                # Few ratings tell a session's bias, so that values hold kappa and kappa holds them: both move at once.
                products = value @ (by * level.counts * value), value @ right
                stretch = draw_bias_stretch(torch.stack(products).double().cpu(), 2 * kappa, 2, generator)
                value, mean, kappa = value * stretch, mean * stretch, kappa / stretch**2
            change = _padded(value - level.value).index_select(0, level.of_session)
            left = left - self.counts * change
            self.levels[number] = replace(level, value=value, precision=kappa)
        self.add_up()
        self.expected = self.value - (value - mean)  # those of the sessions themselves, which were drawn last

    def add_up(self) -> None:
        """Set `value` to what the levels say."""
        parts = (_padded(level.value).index_select(0, level.of_session) for level in self.levels)
        self.value = torch.stack(list(parts)).sum(0)

    def precisions(self) -> Array:
        """Of the levels, (LEVELS,); infinite where users have too few sessions to group."""
        found = np.full(LEVELS, np.inf)
        found[: len(self.levels)] = [level.precision for level in self.levels]
        return found


def start_session_bias(users: Codes, of_rating: Codes, device: torch.device) -> SessionBias:
    """Biases of 0.

    Args:
        users: the user of each session, shape (m,), sorted; a user's sessions are in the order of time.
        of_rating: the session of each rating, shape (n,); m for none.
        device: where the tensors are.
    """

    def moved(array: Array) -> Tensor:
        return torch.from_numpy(array).to(device)

    counts = np.bincount(of_rating, minlength=len(users) + 1)[:-1]
    levels: list[Level] = []
    of_session: Array = np.arange(len(users))
    of_group: Array = users.astype(np.int64)
    for _ in range(LEVELS):
        sizes = np.bincount(of_session, weights=counts, minlength=len(of_group) + 1)[: len(of_group)]
        tables = of_session, of_group, sizes.astype(np.float32), np.zeros(len(of_group), np.float32)
        levels.append(Level(*(moved(table) for table in tables), START_SESSION_PRECISION))
        of_session, of_group = _join(of_session, of_group)
        if not len(of_group):
            break
    nothing = moved(np.zeros(len(users), np.float32))
    return SessionBias(moved(of_rating.astype(np.int64)), moved(counts.astype(np.float32)), levels, nothing, nothing)


def _join(of_session: Array, users: Array) -> tuple[Array, Array]:
    """Groups of about TOGETHER groups in a row, g of them: that of each session, g for none, and the user of each.

    A user's only group would be the user's bias over again, and is left out.
    """
    counts = np.bincount(users)
    rank = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    pieces = np.maximum(1, np.round(counts / TOGETHER)).astype(np.int64)
    pieces[pieces == 1] = 0
    firsts = np.cumsum(pieces) - pieces
    total = int(pieces.sum())
    joined = np.where(pieces[users] > 0, firsts[users] + rank * pieces[users] // np.maximum(counts[users], 1), total)
    return np.append(joined, total)[of_session], np.repeat(np.arange(len(pieces)), pieces)


def _padded(values: Tensor) -> Tensor:
    """With a 0 for those who belong to no group."""
    return torch.cat((values, values.new_zeros(1)))
