"""Gibbs sampling of Bayesian matrix factorization.

The model is that of Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte
Carlo" (ICML 2008), with five additions. Ratings are standardised; for user u, item i and session t

    y_ui ~ N(b_u + b_i + p_u' q_i + c_ut, 1 / (tau lambda_u)),    lambda_u ~ Gamma(a, a)
    (p_u, b_u) ~ N(mu + W' f_u, Lambda^-1),                (mu, Lambda) ~ Normal-Wishart(omega)

and the second line also holds for items.

- A bias is one more coordinate of its row.
- omega, the width of the prior, is sampled too: it says how large the factors are, down to almost 0 (priors.py).
- f_u says which items the user rated, whatever the rating (implicit_features.py). W is the link matrix of Simm et al.,
  "Macau" (2017). W' f_u is the implicit term of SVD++ (Koren 2008), as a prior mean.
- lambda_u, a precision for each user, is that of Lakshminarayanan, Bouchard and Archambeau, "Robust Bayesian matrix
  factorisation" (AISTATS 2011).
- c_ut is a bias of the session in which the user gave the rating (sessions.py): the sum of a part of its own and of
  those of larger and larger groups of sessions, N(0, 1 / kappa) with a kappa for each size (session_bias.py).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from recsys.arrays import Array, Codes, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.padding import make_chunks
from recsys.models.bayesian_mf.backend import Table, find_backend
from recsys.models.bayesian_mf.conditional import Conditional, DeviceChunk
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.entity import Entity
from recsys.models.bayesian_mf.generators import get_state, make_generator, set_state
from recsys.models.bayesian_mf.implicit_features import count_features, learn_implicit_features
from recsys.models.bayesian_mf.partition import Collective, Partition
from recsys.models.bayesian_mf.posterior import Draw
from recsys.models.bayesian_mf.priors import (
    draw_bias_stretch,
    draw_gamma,
    draw_normal_wishart,
    draw_spread,
    draw_stretch,
    draw_width,
    spread_weights,
)
from recsys.models.bayesian_mf.session_bias import SessionBias, start_session_bias
from recsys.models.bayesian_mf.warm_up import warm_up
from recsys.runtime.device import find_device
from recsys.runtime.threads import Each, workers

# The chain starts (warm_up.py) from alternating ridge regressions with this penalty (for standardised ratings). A
# weaker penalty over-fits, and the chain needs tens of sweeps to recover. A stronger one shrinks weak factors to 0, and
# each later sweep can make them only a little larger.
START_PRECISION = 12.0
START_LINK_PRECISION = 1.5
# Of the draws of factors (gram.overrelax), once the chain has found how large factors and noise are, for which it would
# need more sweeps.
OVERRELAXATION = 0.8
_START_SCALE = 0.1
_START_NOISE = 1.5  # tau
_START_SPREAD = 4.0  # a of Gamma(a, a): the larger, the more alike are the users' precisions


class Chain:
    """A Markov chain over all unknowns of the model.

    The first `warm_up.start` sweeps set the factors to their conditional means under a fixed prior (alternating least
    squares). Each later sweep draws every unknown once. The same seed gives the same chain, for any number of threads
    and for any number of processes that compute it together.
    """

    def __init__(
        self,
        rows: Interactions,
        sizes: tuple[int, int],
        config: Config,
        seed: int,
        collective: Collective | None = None,
    ) -> None:
        """A chain without the implicit term and the time term; `add_implicit` and `add_sessions` add them.

        Args:
            rows: all ratings, in every process of a group alike.
            sizes: number of users, and of items.
            config: gives the number of factors and, without a group, the device.
            seed: of all random numbers.
            collective: the group of processes that compute the chain together, each the rows of its partition. All
                sweep at the same time. None: one process.
        """
        self.backend = find_backend(collective.device if collective else find_device(config.device))
        self.collective = collective
        self.size = config.embedding_size
        self.centre, self.scale = float(rows.ratings.mean()), float(rows.ratings.std()) or 1.0
        self.generator = make_generator(seed)  # of single numbers and small matrices
        self.noise_generator: Any = self.backend.generator(seed + 1)  # of tables
        target = np.append((rows.ratings - self.centre) / self.scale, 0.0)  # the last one stands for padding
        self.ratings = self.backend.table(target.astype(np.float32))
        self.target = self.ratings  # less the biases of the sessions
        self.n = len(rows)
        self.noise = _START_NOISE
        self.noise_limit = math.inf  # what the precision of a rating may be at most
        self.spread = _START_SPREAD
        self.weighted = (
            True  # whether a rating counts by its user's precision; if not, that says how sure a prediction is
        )
        self.sweeps, self.warm_up = 0, warm_up(self.n, sum(sizes), self.size)
        self.residual = math.nan  # root mean square error of the last draw on the ratings
        self.users = self._make_entity(rows.users, rows.items, *sizes)
        self.items = self._make_entity(rows.items, rows.users, *sizes[::-1])
        counts = np.bincount(rows.users, minlength=sizes[0])
        self._half_counts, self._spread_weights = self.backend.table(counts / 2), spread_weights(counts)
        self.sessions: SessionBias | None = None
        # With the time term: each rating less everything but its session's bias; the last one stands for padding.
        self.rest = self.target
        self.projection: Table | None = None

    def add_implicit(self, each: Each | None = None) -> None:
        """Add the implicit term: which items a user rated. Its link W is drawn from the next sweep on.

        Args:
            each: as of `sweep`, where there is one already.
        """
        users, items = self.users, self.items
        rank, width = count_features(self.n, len(users.factors), len(items.factors))
        base = self.backend.normal(self.noise_generator, len(items.factors), width)
        with workers(self.backend.device) if each is None else nullcontext(each) as spread:
            learnt = learn_implicit_features(users, items, base, rank, spread)
        for entity, features in ((users, learnt[0]), (items, learnt[1])):
            sums = self.backend.column_sums(features), self.backend.column_sums(features * features)
            entity.features, entity.feature_sums = features, np.stack(sums)
            entity.link = np.zeros((rank, self.size + 1))
        self.projection = learnt[2]

    def add_sessions(self, users: Codes, of_rating: Codes) -> None:
        """Add the time term: a bias of every session.

        Args:
            users: the user of each session, shape (m,).
            of_rating: the session of each rating, shape (n,); m for none.
        """
        self.sessions = start_session_bias(users, of_rating, self.backend)
        self.rest = self.backend.zeros(self.n + 1)

    def _make_entity(self, own: Codes, other: Codes, n: int, n_other: int) -> Entity:
        moved = self.backend.table
        counts = np.bincount(own, minlength=n)
        cells = self.backend.cells(int(counts.max(initial=0)))
        chunks, unrated = make_chunks(own, n, cells=cells, waste=self.backend.waste)
        partition = Partition(chunks, self.collective, self.backend)
        padded = np.append(other, n_other).astype(np.int32)
        d = self.size + 1
        factors = self.backend.normal(self.noise_generator, n, d) * _START_SCALE
        factors[:, -1] = 0
        return Entity(
            backend=self.backend,
            counts=moved(counts.astype(np.float32)),
            chunks=[
                DeviceChunk(
                    moved(chunk.rows),
                    moved(counts[chunk.rows]),
                    tuple(moved(np.where(block < 0, np.int32(self.n), block)) for block in chunk.blocks),
                    tuple(moved(padded[block]) for block in chunk.blocks),
                )
                for chunk in partition.chunks
            ],
            partition=partition,
            unrated=moved(unrated),
            features=None,
            feature_sums=np.zeros((2, 0)),
            factors=factors,
            expected=self.backend.zeros(n, d),
            precision=moved(np.ones(n, np.float32)),
            link=np.zeros((0, d)),
            link_precision=START_LINK_PRECISION,
            mean=np.zeros(d),
            inverse=np.eye(d) * START_PRECISION,
            width=1.0,
        )

    def sweep(self, each: Each) -> None:
        """Draw every unknown once; `each` applies a function to all chunks, possibly in several threads."""
        starting = self.sweeps < self.warm_up.start
        for entity, other in ((self.items, self.users), (self.users, self.items)):
            self._draw_prior(entity, starting, each)
            sums = self._draw_factors(entity, other, starting, each)
            if starting:
                continue
            errors = sums[:, 0].clip(min=0)  # rounding makes a sum of squares that is almost 0 negative
            if entity is self.users:
                self.residual = math.sqrt(float(errors.sum()) / self.n)
                precision = self._draw_user_precision(errors)
                if self.weighted:
                    errors, sums = errors * precision, sums * precision[:, None]
            self._draw_noise(errors)
            moments = self.backend.column_sums(sums[:, 1:]) * self.noise
            if entity is self.items:
                by = self._stretch(entity, moments[:2])
                left = moments[3] - (by - 1) * moments[4]  # the product of the factors has changed
                self._stretch_biases(entity, np.array((moments[2], left)))
            elif not self.sessions:  # their part of the ratings is drawn next, from what these biases leave
                self._stretch_biases(entity, moments[2:4])
        if self.sessions:
            self._draw_sessions(self.sessions, starting)
        self.sweeps += 1

    def _draw_user_precision(self, errors: Table) -> Table:
        """Draw a and then each user's lambda (n_users,), given each user's sum of squared errors (n_users,)."""
        users, half_errors = self.users, self.noise * errors / 2
        self.spread = draw_spread(self._half_counts, half_errors, self.generator, self._spread_weights, self.backend)
        shape, rate = self.spread + users.counts / 2, self.spread + half_errors
        users.precision = self.backend.gamma(self.noise_generator, shape) / rate
        return users.precision

    def _draw_noise(self, errors: Table) -> None:
        """Draw tau, whose prior is Gamma(1, 1), given sums of squared errors, each times its user's lambda."""
        drawn = draw_gamma(1 + self.n / 2, 1 + float(errors.sum()) / 2, self.generator)
        self.noise = min(drawn, self.noise_limit)

    def _draw_prior(self, entity: Entity, starting: bool, each: Each) -> None:
        """Draw mu, Lambda and omega, then the link W and its precision, given the factors."""
        together = entity.features_times_factors(each)
        mean, scatter = entity.left_by_features(together)
        if starting:
            entity.mean = np.zeros(len(mean))
            entity.mean[-1] = mean[-1]
        else:
            n = len(entity.factors)
            entity.mean, entity.inverse = draw_normal_wishart(n, mean, scatter, self.generator, entity.width)
            entity.width = draw_width(entity.inverse, self.generator)
        if together is None:
            return
        # The columns of the features are orthogonal, so the matrix of the ridge regression is diagonal.
        of_features, squares = entity.feature_sums
        shrunk = squares + entity.link_precision  # (r,)
        entity.link = (together - np.outer(of_features, entity.mean)) / shrunk[:, None]
        if not starting:
            self._draw_link(entity, shrunk)

    def _draw_link(self, entity: Entity, shrunk: Floats) -> None:
        """Turn the mean of the link into a draw, and draw its precision; `shrunk` is the regression's matrix, (r,)."""
        root = np.linalg.cholesky(entity.inverse)
        noise = self.generator.standard_normal(entity.link.shape)
        entity.link = entity.link + noise @ np.linalg.inv(root) / np.sqrt(shrunk)[:, None]
        square = float(((entity.link @ root) ** 2).sum())
        entity.link_precision = draw_gamma(1 + entity.link.size / 2, 1 + square / 2, self.generator)

    def _stretch(self, entity: Entity, moments: Floats) -> float:
        """Multiply all factors of an entity, and their prior with them, by one number that is drawn; returns it.

        The prior holds each factor, and the factors hold the prior, so that an ordinary sweep can change the size of
        all factors only a little. If they move together, only the ratings hold them. `moments` are those of
        draw_stretch.
        """
        by = draw_stretch(moments, entity.width, self.generator)
        self._multiply(entity, slice(0, self.size), by)
        entity.width *= by**2
        return by

    def _stretch_biases(self, entity: Entity, moments: Floats) -> None:
        """Multiply all biases of an entity likewise; `moments` are those of draw_bias_stretch."""
        by = draw_bias_stretch(moments, float(entity.inverse[-1, -1]), self.size + 1, self.generator)
        self._multiply(entity, slice(self.size, None), by)

    def _multiply(self, entity: Entity, columns: slice, by: float) -> None:
        """Multiply some columns of the factors that this sweep has drawn by a number, and their prior with them."""
        for table in (entity.factors, entity.expected):
            table[:, columns] *= by
        scales = np.ones(self.size + 1)
        scales[columns] = by
        entity.mean, entity.link = entity.mean * scales, entity.link * scales
        entity.inverse = entity.inverse / scales / scales[:, None]

    def _draw_factors(self, entity: Entity, other: Entity, starting: bool, each: Each) -> Table:
        """Draw the factors of one entity given the other's; returns gram.sum_errors of all its rows, (n, 6)."""
        n, d = entity.factors.shape
        noise = self.backend.zeros(n, d) if starting else self.backend.normal(self.noise_generator, n, d, each=each)
        # The results of each row stand side by side: new factors, expected factors, the six sums.
        results = self.backend.zeros(n, 2 * d + 6)
        new, expected, sums = results[:, :d], results[:, d : 2 * d], results[:, 2 * d :]
        if len(entity.unrated):
            root = entity.to_device(np.linalg.inv(np.linalg.cholesky(entity.inverse)))
            expected[entity.unrated] = entity.prior_mean(entity.unrated)
            new[entity.unrated] = expected[entity.unrated] + noise[entity.unrated] @ root
        conditional = Conditional(
            others=other.factors,
            other_precision=self._weight(other),
            target=self.target,
            weight=self.noise * self._weight(entity),
            inverse=entity.to_device(entity.inverse),
            pull=entity.prior_pull(each),
            noise=noise,
            before=entity.factors,
            overrelaxation=OVERRELAXATION if self.sweeps >= self.warm_up.start + self.warm_up.plain else 0.0,
            results=results,
            rest=self.rest if entity is self.users and self.sessions else None,
        )
        each(self.backend.solver(conditional), entity.chunks)
        entity.partition.gather_rows(results)
        entity.factors, entity.expected = self.backend.contiguous(new), self.backend.contiguous(expected)
        return sums

    def _weight(self, entity: Entity) -> Table:
        return entity.precision if self.weighted else self.backend.xp.ones_like(entity.precision)

    def _draw_sessions(self, sessions: SessionBias, starting: bool) -> None:
        """Draw the biases of the sessions, given what all else leaves of the ratings, and then their precisions."""
        left = self.users.partition.sum(sessions.sums(self.rest))
        weight = self.noise * self._weight(self.users)
        sessions.draw(left, weight, None if starting else self.generator, self.noise_generator)
        self.target = self.ratings - sessions.of_ratings()

    def state(self) -> dict[str, Array]:
        """Everything that a sweep changes; with what the chain was made of, it determines all later sweeps."""
        arrays = {"generator": get_state(self.generator), "noise_generator": self.backend.state(self.noise_generator)}
        for name, holder, attribute, is_table in self._sampled():
            value = getattr(holder, attribute)
            arrays[name] = np.array(self.backend.array(value) if is_table else value)
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Set the state; raises KeyError or ValueError if it is not that of a chain like this one."""
        for name, holder, attribute, is_table in self._sampled():
            present = getattr(holder, attribute)
            if np.shape(state[name]) != tuple(np.shape(present)):
                raise ValueError(f"{name} is of shape {np.shape(state[name])}, not {tuple(np.shape(present))}")
            found: Any = self.backend.table(state[name]) if is_table else state[name]
            setattr(holder, attribute, type(present)(found) if isinstance(present, float | int) else found)
        set_state(self.generator, state["generator"])
        self.backend.set_state(self.noise_generator, state["noise_generator"])
        if self.sessions:
            self.sessions.add_up()
            self.target = self.ratings - self.sessions.of_ratings()

    def _sampled(self) -> Iterator[tuple[str, object, str, bool]]:
        """Name in the saved state, holder and attribute of everything that a sweep changes; whether it is a table."""
        for number in ("noise", "spread", "sweeps", "residual"):
            yield number, self, number, False
        for name, entity in (("users", self.users), ("items", self.items)):
            for attribute in ("factors", "precision", "link", "link_precision", "mean", "inverse", "width"):
                yield f"{name}_{attribute}", entity, attribute, attribute in ("factors", "precision")
        if self.sessions:
            for size, level in enumerate(self.sessions.levels):
                yield f"runs_value_{size}", level, "value", True
                yield f"runs_precision_{size}", level, "precision", False

    def draw(self) -> Draw:
        """The present draw."""
        users, items, array = self.users, self.items, self.backend.array
        regressors = items.factors * 1  # a copy
        regressors[:, -1] = 1
        second = (regressors * items.counts[:, None]).T @ regressors / self.n
        deviation = users.factors - users.expected
        return Draw(
            user_factors=array(users.expected).astype(np.float16),
            user_variance=array(((deviation @ second) * deviation).sum(1)),
            item_factors=array(items.factors).astype(np.float16),
            second=array(second),
            noise=self.noise,
            user_precision=array(users.precision).copy(),
            mean=users.mean.astype(np.float32),
            inverse=users.inverse.astype(np.float32),
            link=users.link.astype(np.float32),
            session_bias=array(self.sessions.expected).copy() if self.sessions else np.zeros(0, np.float32),
            session_precision=self.sessions.precisions() if self.sessions else np.zeros(0),
        )
