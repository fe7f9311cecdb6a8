"""Draws from the posterior of a Bayesian matrix factorization, and predictions from them.

NumPy only: a loaded model does not import PyTorch.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.arrays import Array, Codes, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.ridge import ridge_systems
from recsys.models.bayesian_mf.sessions import Sessions

_BLOCK = 1 << 16  # numbers that are gathered at a time from each table; they stay in the cache of one core
_SPREAD_SAMPLE = 128  # users or items over which a variance is averaged
_SPREAD_BLOCK = 1 << 13
_MANY_ITEMS = 32  # of a user, on average: more than the user's own row costs to find
_DENSE_SHARE = 0.5  # if at least this share of a grid of users and items is asked for, the whole grid is computed


@dataclass(frozen=True)
class Draw:
    """One draw, for standardised ratings, as NumPy arrays: what is needed to predict and to fold in other users.

    Factors are float16, because the draws are the largest part of a model. The rounding error of about a thousandth is
    far smaller than the standard deviation of a factor.
    """

    user_factors: Array  # (n_users, d), the bias last: the conditional mean, given everything else
    user_variance: Array  # (n_users,) variance of a rating due to the factors' own, on average over rated items
    item_factors: Array  # (n_items, d), the bias last
    second: Array  # (d, d) second moment of [item factors, 1], on average over ratings
    noise: float  # tau, the precision of a rating
    user_precision: Array  # (n_users,) lambda, by which it is multiplied
    mean: Array  # (d,) mu of the users
    inverse: Array  # (d, d) Lambda of the users
    link: Array  # (r, d) W of the users
    session_bias: Array  # (m,) the mean, given all but the session's own part of it; of length 0 without the time term
    session_precision: Array  # kappa of the sessions' own parts, then of groups of them; (0,) without the time term


SAVED_NAMES = {"session_bias": "run_bias", "session_variance": "run_variance", "session_precision": "run_precision"}
"""Names of arrays in files where they differ from the names here: files of earlier releases stay readable."""


@dataclass(frozen=True, eq=False)
class PosteriorDraws:
    """s draws of the factors of all users and items, for standardised ratings. d = k + 1, with k factors.

    A rating by one draw is one inner product of a row of `users` and a row of `items`. `users` holds conditional means
    given the items of the draw; `variance` is the variance that is left within a draw.
    """

    users: Array  # (n_users, s, k + 2) of [factors, bias, 1]
    items: Array  # (n_items, s, k + 2) of [factors, 1, bias]
    noise: Array  # (n_users,) variance of a rating's noise, mean over the draws
    variance: Array  # (n_users,) variance of a rating due to the user's factors within a draw, mean over the draws
    second: Array  # (d, d) second moment of [item factors, 1], on average over ratings
    precision: Array  # (s,) tau
    mean: Array  # (s, d) mu of the users
    inverse: Array  # (s, d, d) Lambda of the users
    link: Array  # (s, r, d) W of the users
    projection: Array  # (n_items, r) by which a user's implicit features are computed
    sessions: Sessions  # m of them
    session_bias: Array  # (m + 1,) the last one for ratings without a session
    session_variance: Array  # (m + 1,)

    def __len__(self) -> int:
        return int(self.users.shape[1])

    def predict(
        self, users: Codes, items: Codes, timestamps: Floats | None = None, share: Floats | float = 1.0
    ) -> tuple[Floats, Floats]:
        """Mean and variance of the posterior predictive distribution of each pair's rating: two arrays of shape (n,).

        The variance is the sum of those between the draws, within a draw, of the session's bias, and of the noise.

        Args:
            users: codes of known users, shape (n,).
            items: codes of known items, shape (n,).
            timestamps: shape (n,), NaN where unknown; they select the sessions. None: no rating has a session.
            share: how much of an answer is what the draws say, (n,): the variance between them counts by its square.
        """
        total, square = self._grid(users, items) or self._by_user(users, items) or self._pairs(users, items)
        mean = total / len(self)
        between = np.maximum(square / len(self) - mean**2, 0) * share**2
        session = -1 if timestamps is None else self.sessions.find(users, timestamps)
        variance = between + self.session_variance[session] + self.variance[users] + self.noise[users]
        return mean + self.session_bias[session], variance

    def of_the_unknown(self) -> tuple[float, Floats, Floats]:
        """Ratings expected where only one of the two is known, or none: of nobody and nothing, (n_users,), (n_items,).

        Of an unknown item nothing is known but that it is one of the items, whose mean each draw has; a user likewise.
        """
        item, user = (table.mean(0, dtype=np.float64) / len(self) for table in (self.items, self.users))
        by_user = np.einsum("nsk,sk->n", self.users, item)
        return float(by_user.mean()), by_user, np.einsum("nsk,sk->n", self.items, user)

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
        """Sum and sum of squares of the ratings over the draws, computed pair by pair."""
        total, square = np.empty(len(users)), np.empty(len(users))
        step = max(1, _BLOCK // (self.users.shape[1] * self.users.shape[2]))
        for start in range(0, len(users), step):
            block = slice(start, start + step)
            tables = self.users.take(users[block], axis=0), self.items.take(items[block], axis=0)
            draws = np.einsum("nsk,nsk->ns", *tables)  # (block, s)
            total[block] = draws.sum(1, dtype=np.float64)
            square[block] = np.einsum("ns,ns->n", draws, draws)
        return total, square

    def _by_user(self, users: Codes, items: Codes) -> tuple[Floats, Floats] | None:
        """The same, user by user, if the pairs of a user stand together and are many (as in a list); else None."""
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        if len(users) == 0 or len(users) < _MANY_ITEMS * len(starts):
            return None
        draws = np.empty((len(users), len(self)), np.float32)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(users)], strict=True):
            table = self.items.take(items[start:end], axis=0)
            np.einsum("nsk,sk->ns", table, self.users[users[start]], out=draws[start:end])
        return draws.sum(1, dtype=np.float64), np.einsum("ns,ns->n", draws, draws)

    def _grid(self, users: Codes, items: Codes) -> tuple[Floats, Floats] | None:
        """The same, by one matrix product a draw, if the pairs fill most of a grid (as in a ranking); else None."""
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

    def fold_in(self, rows: Interactions, n_users: int, ratings: Floats) -> "PosteriorDraws":
        """The draws with the users of `rows` added, or replaced if they were there.

        Their factors are the conditional means given the items of each draw. Their noise is that of the average user.

        Args:
            rows: ratings in codes below `n_users`; users without a row are not changed.
            n_users: number of users afterwards.
            ratings: the ratings of `rows`, standardised, shape (n,).
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
            for whose, precision, right in ridge_systems(rows, n_users, table[:, :-1], target, inverse, pull):
                users[whose, draw, :-1] = np.linalg.solve(precision, right[:, :, None])[:, :, 0].astype(np.float16)
                variance[whose] += np.linalg.solve(precision, self.second[None]).trace(axis1=1, axis2=2) / n_draws
        rated = counts > 0
        noise = np.append(self.noise, np.zeros(n_users - old))
        noise[rated] = self.noise.mean()
        kept = ~rated[self.sessions.users]  # the sessions of a replaced user belong to the earlier ratings
        return replace(
            self,
            users=users,
            noise=noise,
            variance=variance,
            sessions=Sessions(self.sessions.users[kept], self.sessions.starts[kept], self.sessions.ends[kept]),
            session_bias=self.session_bias[np.append(kept, True)],
            session_variance=self.session_variance[np.append(kept, True)],
        )


def _in_turn(n: int) -> Iterator[Codes]:
    for start in range(0, n, _SPREAD_BLOCK):
        yield np.arange(start, min(start + _SPREAD_BLOCK, n), dtype=np.int32)


def pack_factors(draws: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """`users` and `items` of PosteriorDraws, from the user and item factors of each draw, (n, k + 1), the bias last.

    Numbers are rounded to float16, as they are saved.
    """
    tables = []
    for entity, bias_column in enumerate((-2, -1)):
        first = draws[0][entity]
        table = np.ones((len(first), len(draws), first.shape[1] + 1), np.float32)
        for number, draw in enumerate(draws):
            factors = draw[entity].astype(np.float16).astype(np.float32)
            table[:, number, : first.shape[1] - 1] = factors[:, :-1]
            table[:, number, bias_column] = factors[:, -1]
        tables.append(table)
    return tables[0], tables[1]


def normal_cdf(x: Floats) -> Floats:
    """The standard normal distribution function, with an error below 1e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    z = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * np.exp(-z * z) / 2
    return np.asarray(np.where(x > 0, 1 - tail, tail), np.float64)


def pack_draws(
    kept: Sequence[Draw], projection: Array | None, sessions: Sessions, session_counts: Array
) -> PosteriorDraws:
    """Put draws together, in the form that predictions are made from.

    Args:
        kept: at least one draw.
        projection: shape (n_items, r); None without the implicit term.
        sessions: m sessions; 0 without the time term.
        session_counts: number of ratings in each session, shape (m,).
    """
    users, items = pack_factors([(draw.user_factors, draw.item_factors) for draw in kept])
    noise = np.mean([1 / (draw.noise * draw.user_precision) for draw in kept], 0)
    small = {name: np.array([getattr(draw, name) for draw in kept], np.float32) for name in ("mean", "inverse", "link")}
    if projection is None:
        projection = np.zeros((len(items), 0), np.float32)
    biases = sum(draw.session_bias.astype(np.float64) for draw in kept) / len(kept)
    variance = sum((draw.session_bias - biases) ** 2 for draw in kept) / len(kept)
    own = (draw.session_precision[0] for draw in kept) if len(sessions) else itertools.repeat(math.inf)
    precisions = (
        draw.noise * draw.user_precision[sessions.users] * session_counts + kappa
        for draw, kappa in zip(kept, own, strict=False)
    )
    variance += sum(1 / precision for precision in precisions) / len(kept)
    new_variance = np.mean([(1 / draw.session_precision).sum() for draw in kept])
    return PosteriorDraws(
        users,
        items,
        noise,
        np.mean([draw.user_variance for draw in kept], 0),
        np.mean([draw.second for draw in kept], 0),
        np.array([draw.noise for draw in kept]),
        projection=projection,
        sessions=sessions,
        session_bias=np.append(biases, 0.0),
        session_variance=np.append(variance, new_variance),
        **small,
    )
