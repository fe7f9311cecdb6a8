"""The biases of the rating sessions, as a chain samples them. Where sessions begin and end is in sessions.py."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from recsys.arrays import Array, Codes
from recsys.models.bayesian_mf.backend import Backend, Table
from recsys.models.bayesian_mf.priors import draw_bias_stretch, draw_gamma

START_SESSION_PRECISION = 60.0
LEVELS, TOGETHER = 4, 3  # sessions, groups of so many of a user's sessions in a row, groups of these


@dataclass
class Level:
    """The biases of g groups of sessions; a group is a session, or some of a user's sessions in a row."""

    of_session: Table  # (m,) the group of each session; g for none
    users: Table  # (g,) the user of each group
    counts: Table  # (g,) ratings in each group
    value: Table  # (g,)
    precision: float  # kappa


@dataclass
class SessionBias:
    """One bias for each of m sessions, which is the sum of those of its groups; n is the number of ratings."""

    backend: Backend
    of_rating: Table  # (n + 1,) the session of each rating; m for none, and for padding
    counts: Table  # (m,) ratings in each session
    levels: list[Level]  # the sessions themselves, then larger and larger groups
    value: Table  # (m,)
    expected: Table  # (m,) `value`, with the mean of the distribution that the session's own part was drawn from

    def fork(self) -> Self:
        """Biases in the same state, to be drawn apart from these."""
        return replace(self, levels=list(self.levels))

    def draw(
        self,
        left: Table,
        weight: Table,
        generator: np.random.Generator | None,
        noise_generator: Any,
    ) -> None:
        """Draw the biases of each level given the others, the largest groups first, and each level's precision.

        Args:
            left: sum of the ratings in each session, less all that predicts them, these biases too, (m,).
            weight: precision of each user's ratings, (n_users,).
            generator: of single numbers. None: biases are set to their means, at fixed precisions.
            noise_generator: of tables, the backend's.
        """
        for number in reversed(range(len(self.levels))):
            level = self.levels[number]
            by = weight[level.users]
            right = by * (self._sums(level, left) + level.counts * level.value)
            precision = by * level.counts + level.precision
            value = mean = right / precision
            kappa = level.precision
            if generator is not None:
                value = mean + self.backend.normal(noise_generator, len(mean)) / precision**0.5
                kappa = draw_gamma(1 + len(mean) / 2, 1 + float(value @ value) / 2, generator)
                # Few ratings tell a session's bias, so that values hold kappa and kappa holds them: both move at once.
                products = float(value @ (by * level.counts * value)), float(value @ right)
                stretch = draw_bias_stretch(np.array(products), 2 * kappa, 2, generator)
                value, mean, kappa = value * stretch, mean * stretch, kappa / stretch**2
            left = left - self.counts * self._padded(value - level.value)[level.of_session]
            self.levels[number] = replace(level, value=value, precision=kappa)
        self.add_up()
        self.expected = self.value - (value - mean)  # those of the sessions themselves, which were drawn last

    def add_up(self) -> None:
        """Set `value` to what the levels say."""
        self.value = sum(self._padded(level.value)[level.of_session] for level in self.levels)

    def precisions(self) -> Array:
        """Of the levels, (LEVELS,); infinite where users have too few sessions to group."""
        found = np.full(LEVELS, np.inf)
        found[: len(self.levels)] = [level.precision for level in self.levels]
        return found

    def sums(self, of_ratings: Table) -> Table:
        """Sums over the ratings of each session, (m,), of a number each, (n + 1,)."""
        return self.backend.sum_by(self.of_rating, of_ratings, len(self.value) + 1)[:-1]

    def of_ratings(self) -> Table:
        """The bias of the session of each rating, (n + 1,); 0 for those without one, and for padding."""
        return self._padded(self.value)[self.of_rating]

    def _sums(self, level: Level, of_sessions: Table) -> Table:
        return self.backend.sum_by(level.of_session, of_sessions, len(level.value) + 1)[:-1]

    def _padded(self, values: Table) -> Table:
        """With a 0 for those who belong to no group."""
        return self.backend.xp.concat((values, self.backend.zeros(1)))


def start_session_bias(users: Codes, of_rating: Codes, backend: Backend) -> SessionBias:
    """Biases of 0.

    Args:
        users: the user of each session, shape (m,), sorted; a user's sessions are in the order of time.
        of_rating: the session of each rating, shape (n,); m for none.
        backend: of the tables.
    """
    counts = np.bincount(of_rating, minlength=len(users) + 1)[:-1]
    levels: list[Level] = []
    of_session: Array = np.arange(len(users))
    of_group: Array = users.astype(np.int64)
    for _ in range(LEVELS):
        sizes = np.bincount(of_session, weights=counts, minlength=len(of_group) + 1)[: len(of_group)]
        total, value = backend.table(sizes.astype(np.float32)), backend.zeros(len(of_group))
        levels.append(Level(backend.table(of_session), backend.table(of_group), total, value, START_SESSION_PRECISION))
        of_session, of_group = _join(of_session, of_group)
        if not len(of_group):
            break
    nothing, padded = backend.zeros(len(users)), np.append(of_rating.astype(np.int64), len(users))
    total = backend.table(counts.astype(np.float32))
    return SessionBias(backend, backend.table(padded), total, levels, nothing, nothing)


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
