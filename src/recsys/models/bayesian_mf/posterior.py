"""Kept draws of a Bayesian factorization, and what they predict. NumPy only: serving needs no PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.arrays import Array, Codes, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.ridge import ridge_systems
from recsys.models.bayesian_mf.sessions import Runs

_BLOCK = 1 << 21  # numbers gathered at a time from each table; small enough for the processor's cache
_SPREAD_SAMPLE = 128  # users or items over which a variance is averaged
_SPREAD_BLOCK = 1 << 13
_DENSE_SHARE = 0.5  # of a grid of users by items that must be asked for, for the whole grid to be multiplied


@dataclass(frozen=True)
class Sample:
    """One draw, as NumPy arrays in standardised units; enough to predict, and to fold in further users.

    Factors are of float16: a thousandth of a factor is far below its spread, and draws are most of a model.
    """

    user_factors: Array  # (n_users, d), the bias last: their mean, given everything else
    user_variance: Array  # (n_users,) of a rating by what the factors differ from that mean, over the items rated
    item_factors: Array  # (n_items, d)
    second: Array  # (d, d) mean square of [item factors, 1] over the items rated
    noise: float  # precision of a rating
    user_precision: Array  # (n_users,), multiplies it
    mean: Array  # (d,) of the users' prior
    inverse: Array  # (d, d)
    link: Array  # (r, d)
    run_bias: Array  # (m,) their mean, given everything else; of length 0 without runs
    run_precision: float


@dataclass(frozen=True, eq=False)
class Samples:
    """s draws of the factors of n_users and n_items, for standardised ratings.

    `users` (n_users, s, k + 2) and `items` (n_items, s, k + 2) hold [factors, bias, 1] and [factors, 1, bias], so
    that a draw's rating is one inner product. A user's are the mean of the factors given the draw's items; `variance`
    (n_users,) is that of a rating by what the factors differ from it, `noise` (n_users,) that of a rating around its
    factors, both on average. `second` (d, d) is the mean square of [factors, 1] over the items that were rated.
    `precision` (s,), `mean` (s, d), `inverse` (s, d, d) and `link` (s, r, d), with d = k + 1, are each draw's noise
    and its prior of a user; with `projection` (n_items, r) they tell what a further user's ratings mean.
    `run_bias` and `run_variance`, (m + 1,), belong to the m `runs`, the last ones to a rating of no run.
    """

    users: Array
    items: Array
    noise: Array
    variance: Array
    second: Array
    precision: Array
    mean: Array
    inverse: Array
    link: Array
    projection: Array
    runs: Runs
    run_bias: Array
    run_variance: Array

    def __len__(self) -> int:
        return int(self.users.shape[1])

    def predict(self, users: Codes, items: Codes, timestamps: Floats | None = None) -> tuple[Floats, Floats]:
        """Mean and variance of a rating's posterior predictive distribution: two arrays of shape (n,).

        The variance is that between the draws and within one, that of the run's bias, and the noise.
        """
        total, square = self._grid(users, items) or self._pairs(users, items)
        mean = total / len(self)
        between = np.maximum(square / len(self) - mean**2, 0)
        run = -1 if timestamps is None else self.runs.find(users, timestamps)
        return mean + self.run_bias[run], between + self.run_variance[run] + self.variance[users] + self.noise[users]

    def spread_parts(self) -> tuple[Floats, Floats]:
        """The variance between the draws of a rating, about, as a part of the user (n_users,) and one of the item."""
        n_users, n_items = len(self.users), len(self.items)
        some_users = np.unique(np.linspace(0, n_users - 1, _SPREAD_SAMPLE).astype(np.int32))
        some_items = np.unique(np.linspace(0, n_items - 1, _SPREAD_SAMPLE).astype(np.int32))
        by_user = np.concatenate([self._variances(rows, some_items).mean(1) for rows in _in_turn(n_users)])
        by_item = np.concatenate([self._variances(some_users, rows).mean(0) for rows in _in_turn(n_items)])
        return by_user, by_item - by_item[some_items].mean()

    def _variances(self, users: Codes, items: Codes) -> Floats:
        """The variance between the draws of every user's ratings (u,) of every item (i,): (u, i)."""
        total, square = np.zeros((len(users), len(items))), np.zeros((len(users), len(items)))
        for draw in range(len(self)):
            rating = self.users[users, draw] @ self.items[items, draw].T
            total += rating
            square += rating * rating
        return np.maximum(square / len(self) - (total / len(self)) ** 2, 0)

    def _pairs(self, users: Codes, items: Codes) -> tuple[Floats, Floats]:
        """Sum and square sum over the draws, pair by pair."""
        total, square = np.empty(len(users)), np.empty(len(users))
        step = max(1, _BLOCK // (self.users.shape[1] * self.users.shape[2]))
        for start in range(0, len(users), step):
            block = slice(start, start + step)
            product = self.users.take(users[block], axis=0)
            product *= self.items.take(items[block], axis=0)
            draws = product.sum(2, dtype=np.float32)  # (block, s)
            total[block] = draws.sum(1, dtype=np.float64)
            square[block] = np.einsum("ns,ns->n", draws, draws)
        return total, square

    def _grid(self, users: Codes, items: Codes) -> tuple[Floats, Floats] | None:
        """The same by one matrix product a draw, where the pairs are most of a grid, as in a ranking; else None."""
        rows, columns = np.flatnonzero(np.bincount(users)), np.flatnonzero(np.bincount(items))
        if len(rows) < 2 or len(users) < _DENSE_SHARE * len(rows) * len(columns):
            return None
        total, square = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
        for draw in range(len(self)):
            rating = self.users[rows, draw] @ self.items[columns, draw].T
            total += rating
            square += rating * rating
        at = np.searchsorted(rows, users), np.searchsorted(columns, items)
        return total[at], square[at]

    def fold_in(self, rows: Interactions, n_users: int, ratings: Floats) -> "Samples":
        """Further users, and anew those with rows: the mean of their factors given each kept draw's items.

        Args:
            rows: in codes below n_users; those of the users known so far stay.
            ratings: of the rows, standardised, (n,).
        """
        counts = np.bincount(rows.users, minlength=n_users)
        features = np.zeros((n_users, self.projection.shape[1]))
        np.add.at(features, rows.users, self.projection[rows.items])
        features /= np.sqrt(np.maximum(counts, 1))[:, None]
        old, n_draws, width = self.users.shape
        users = np.ones((n_users, n_draws, width), np.float32)
        users[:old] = self.users
        variance = np.append(self.variance, np.zeros(n_users - old))
        variance[counts > 0] = 0
        for draw in range(n_draws):
            root = np.sqrt(self.precision[draw])
            table = self.items[:, draw].astype(np.float64) * root
            inverse = self.inverse[draw].astype(np.float64)
            pull = (self.mean[draw] + features @ self.link[draw]) @ inverse
            target = root * ratings - table[rows.items, -1]
            for whose, precision, side in ridge_systems(rows, n_users, table[:, :-1], target, inverse, pull):
                users[whose, draw, :-1] = np.linalg.solve(precision, side[:, :, None])[:, :, 0].astype(np.float16)
                variance[whose] += np.linalg.solve(precision, self.second[None]).trace(axis1=1, axis2=2) / n_draws
        rated = counts > 0
        noise = np.append(self.noise, np.zeros(n_users - old))
        noise[rated] = self.noise.mean()
        kept = ~rated[self.runs.users]  # a run belongs to the ratings that were replaced
        return replace(
            self,
            users=users,
            noise=noise,
            variance=variance,
            runs=Runs(self.runs.users[kept], self.runs.starts[kept], self.runs.ends[kept]),
            run_bias=self.run_bias[np.append(kept, True)],
            run_variance=self.run_variance[np.append(kept, True)],
        )


def _in_turn(n: int) -> Iterator[Codes]:
    for start in range(0, n, _SPREAD_BLOCK):
        yield np.arange(start, min(start + _SPREAD_BLOCK, n), dtype=np.int32)


def pack(draws: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The two tables of Samples from each draw's user and item factors, (n, k + 1) with the bias last.

    Numbers are rounded to float16, which is how they are kept and saved.
    """
    sides = []
    for side in range(2):
        first = draws[0][side]
        table = np.ones((len(first), len(draws), first.shape[1] + 1), np.float32)
        for number, draw in enumerate(draws):
            factors = draw[side].astype(np.float16).astype(np.float32)
            table[:, number, : first.shape[1] - 1] = factors[:, :-1]
            table[:, number, -2 if side == 0 else -1] = factors[:, -1]
        sides.append(table)
    return sides[0], sides[1]


def normal_cdf(x: Floats) -> Floats:
    """The standard normal distribution function, within 1e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    z = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * np.exp(-z * z) / 2
    return np.asarray(np.where(x > 0, 1 - tail, tail), np.float64)


def pack_samples(kept: Sequence[Sample], projection: Array | None, runs: Runs, run_counts: Array) -> Samples:
    """Draws as they are predicted by.

    Args:
        kept: at least one draw.
        projection: (n_items, r), where the chain learnt from who rated what.
        runs: m runs; none where the chain knew no time.
        run_counts: ratings of each run, (m,).
    """
    users, items = pack([(draw.user_factors, draw.item_factors) for draw in kept])
    noise = np.mean([1 / (draw.noise * draw.user_precision) for draw in kept], 0)
    small = {name: np.array([getattr(draw, name) for draw in kept], np.float32) for name in ("mean", "inverse", "link")}
    if projection is None:
        projection = np.zeros((len(items), 0), np.float32)
    biases = sum(draw.run_bias.astype(np.float64) for draw in kept) / len(kept)
    variance = sum((draw.run_bias - biases) ** 2 for draw in kept) / len(kept)
    precisions = (draw.noise * draw.user_precision[runs.users] * run_counts + draw.run_precision for draw in kept)
    variance += sum(1 / precision for precision in precisions) / len(kept)
    new_variance = np.mean([1 / draw.run_precision for draw in kept])
    return Samples(
        users,
        items,
        noise,
        np.mean([draw.user_variance for draw in kept], 0),
        np.mean([draw.second for draw in kept], 0),
        np.array([draw.noise for draw in kept]),
        projection=projection,
        runs=runs,
        run_bias=np.append(biases, 0.0),
        run_variance=np.append(variance, new_variance),
        **small,
    )
