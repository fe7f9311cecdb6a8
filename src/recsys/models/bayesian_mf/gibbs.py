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

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Array, Codes
from recsys.data.interactions import Interactions
from recsys.models.base.padding import make_chunks
from recsys.models.bayesian_mf import compiled, gram
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.entity import Entity
from recsys.models.bayesian_mf.gram import Conditional, DeviceChunk, make_table
from recsys.models.bayesian_mf.implicit_features import learn_implicit_features
from recsys.models.bayesian_mf.partition import Collective, Partition
from recsys.models.bayesian_mf.posterior import Draw
from recsys.models.bayesian_mf.priors import (
    draw_bias_stretch,
    draw_gamma,
    draw_normal_wishart_of,
    draw_spread,
    draw_stretch,
    draw_width,
    spread_weights,
)
from recsys.models.bayesian_mf.session_bias import SessionBias, start_session_bias
from recsys.models.bayesian_mf.warm_up import warm_up
from recsys.runtime.device import find_device
from recsys.runtime.threads import Each, one_thread, workers

# The chain starts (warm_up.py) from alternating ridge regressions with this penalty (for standardised ratings). A
# weaker penalty over-fits, and the chain needs tens of sweeps to recover. A stronger one shrinks weak factors to 0, and
# each later sweep can make them only a little larger.
START_PRECISION = 12.0
START_LINK_PRECISION = 1.5
# Overrelaxation of the draws of factors (gram.overrelax). It begins once the chain has found how large factors and
# noise are, for which it would need more sweeps.
OVERRELAXATION, OVERRELAX_AFTER = 0.8, 8
_START_SCALE = 0.1
_START_NOISE = 1.5  # tau
_START_SPREAD = 4.0  # a of Gamma(a, a): the larger, the more alike are the users' precisions
_CPU_CELLS, _CPU_WASTE = 1 << 15, 1 << 11  # of a chunk: there are then enough for several threads
_GPU_CELLS, _GPU_WASTE = 1 << 20, 1 << 17


def _is_compiled(device: torch.device) -> bool:
    return device.type == "cpu"


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
        self.device = torch.device(collective.device if collective else find_device(config.device))
        self.collective = collective
        self.size = config.embedding_size
        self.centre, self.scale = float(rows.ratings.mean()), float(rows.ratings.std()) or 1.0
        self.generator = torch.Generator().manual_seed(seed)  # of single numbers and small matrices, on the CPU
        self.noise_generator = torch.Generator(self.device).manual_seed(seed + 1)  # of large tables, on the device
        target = np.append((rows.ratings - self.centre) / self.scale, 0.0)  # the last one stands for padding
        self.ratings = torch.from_numpy(target.astype(np.float32)).to(self.device)
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
        with one_thread(self.device):
            self._spread_weights = spread_weights(self.users.counts)
        self.sessions: SessionBias | None = None
        # With the time term: each rating less everything but its session's bias; the last one stands for padding.
        self.rest = self.target
        self.projection: Tensor | None = None

    def add_implicit(self, each: Each | None = None) -> None:
        """Add the implicit term: which items a user rated. Its link W is drawn from the next sweep on.

        Args:
            each: as of `sweep`, where there is one already.
        """
        with workers(self.device) if each is None else nullcontext(each) as spread:
            learnt = learn_implicit_features(self.users, self.items, self.noise_generator, spread)
        self.users.features, self.items.features, self.projection = learnt
        for entity in (self.users, self.items):
            assert entity.features is not None
            entity.feature_sums = torch.stack((entity.features.sum(0), entity.features.square().sum(0)))
            entity.link = torch.zeros(entity.features.shape[1], self.size + 1, device=self.device)

    def add_sessions(self, users: Codes, of_rating: Codes) -> None:
        """Add the time term: a bias of every session.

        Args:
            users: the user of each session, shape (m,).
            of_rating: the session of each rating, shape (n,); m for none.
        """
        self.sessions = start_session_bias(users, of_rating, self.device)
        self.rest = torch.zeros_like(self.target)

    def _make_entity(self, own: Codes, other: Codes, n: int, n_other: int) -> Entity:
        counts = np.bincount(own, minlength=n)
        cells, waste = _GPU_CELLS, _GPU_WASTE
        if _is_compiled(self.device):
            cells, waste = max(_CPU_CELLS, int(counts.max(initial=0))), _CPU_WASTE  # a row is never cut
        chunks, unrated = make_chunks(own, n, cells=cells, waste=waste)
        partition = Partition(chunks, self.collective, self.device)
        padded = np.append(other, n_other).astype(np.int32)

        def moved(array: Array) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        d = self.size + 1
        factors = torch.randn(n, d, generator=self.noise_generator, device=self.device) * _START_SCALE
        factors[:, -1] = 0
        return Entity(
            counts=moved(counts.astype(np.float32)),
            chunks=[
                DeviceChunk(
                    moved(chunk.rows),
                    tuple(moved(np.where(block < 0, np.int32(self.n), block)) for block in chunk.blocks),
                    tuple(moved(padded[block]) for block in chunk.blocks),
                )
                for chunk in partition.chunks
            ],
            partition=partition,
            unrated=moved(unrated),
            features=None,
            feature_sums=torch.zeros(2, 0, device=self.device),
            factors=factors,
            expected=factors,
            precision=torch.ones(n, device=self.device),
            link=torch.zeros(0, d, device=self.device),
            link_precision=START_LINK_PRECISION,
            mean=torch.zeros(d, device=self.device),
            inverse=torch.eye(d, device=self.device) * START_PRECISION,
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
            errors = sums[:, 0].clamp(min=0)  # rounding makes a sum of squares that is almost 0 negative
            if entity is self.users:
                self.residual = math.sqrt(float(errors.sum()) / self.n)
                precision = self._draw_user_precision(errors)
                if self.weighted:
                    errors, sums = errors * precision, sums * precision[:, None]
            self._draw_noise(errors)
            moments = sums[:, 1:].sum(0).double().cpu() * self.noise
            if entity is self.items:
                by = self._stretch(entity, moments[:2])
                left = moments[3] - (by - 1) * moments[4]  # the product of the factors has changed
                self._stretch_biases(entity, torch.stack((moments[2], left)))
            elif not self.sessions:  # their part of the ratings is drawn next, from what these biases leave
                self._stretch_biases(entity, moments[2:4])
        if self.sessions:
            self._draw_sessions(self.sessions, starting)
        self.sweeps += 1

    def _draw_user_precision(self, errors: Tensor) -> Tensor:
        """Draw a and then each user's lambda (n_users,), given each user's sum of squared errors (n_users,)."""
        users, half_errors = self.users, self.noise * errors / 2
        self.spread = draw_spread(users.counts, half_errors, self.generator, self._spread_weights)
        shape, rate = self.spread + users.counts / 2, self.spread + half_errors
        users.precision = draw_gamma(shape, rate, self.noise_generator)
        return users.precision

    def _draw_noise(self, errors: Tensor) -> None:
        """Draw tau, whose prior is Gamma(1, 1), given sums of squared errors, each times its user's lambda."""
        shape = torch.tensor(1 + self.n / 2)
        self.noise = min(float(draw_gamma(shape, 1 + errors.sum().cpu() / 2, self.generator)), self.noise_limit)

    def _draw_prior(self, entity: Entity, starting: bool, each: Each) -> None:
        """Draw mu, Lambda and omega, then the link W and its precision, given the factors."""
        together = entity.features_times_factors(each)
        mean, scatter = entity.left_by_features(together)
        if starting:
            entity.mean = torch.zeros_like(entity.mean)
            entity.mean[-1] = mean[-1]
        else:
            n = len(entity.factors)
            drawn, inverse = draw_normal_wishart_of(n, mean, scatter, self.generator, entity.width)
            entity.width = draw_width(inverse, self.generator)
            entity.mean, entity.inverse = drawn.to(entity.factors), inverse.to(entity.factors)
        if together is None:
            return
        # The columns of the features are orthogonal, so the matrix of the ridge regression is diagonal.
        of_features, squares = entity.feature_sums
        shrunk = squares + entity.link_precision  # (r,)
        entity.link = (together - torch.outer(of_features, entity.mean)) / shrunk[:, None]
        if not starting:
            self._draw_link(entity, shrunk)

    def _draw_link(self, entity: Entity, shrunk: Tensor) -> None:
        """Turn the mean of the link into a draw, and draw its precision; `shrunk` is the regression's matrix, (r,)."""
        root = torch.linalg.cholesky(entity.inverse)
        noise = torch.randn(entity.link.shape, generator=self.noise_generator, device=self.device)
        inverse = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
        entity.link = entity.link + noise @ inverse / shrunk.sqrt()[:, None]
        square = float((entity.link @ root).square().sum())
        shape = torch.tensor(1 + entity.link.numel() / 2)
        entity.link_precision = float(draw_gamma(shape, torch.tensor(1 + square / 2), self.generator))

    def _stretch(self, entity: Entity, moments: Tensor) -> float:
        """Multiply all factors of an entity, and their prior with them, by one number that is drawn; returns it.

        The prior holds each factor, and the factors hold the prior, so that an ordinary sweep can change the size of
        all factors only a little. If they move together, only the ratings hold them. `moments` are those of
        draw_stretch.
        """
        by = entity.mean.new_full((self.size + 1,), draw_stretch(moments, entity.width, self.generator))
        by[-1] = 1
        self._multiply(entity, by)
        entity.width *= float(by[0]) ** 2
        return float(by[0])

    def _stretch_biases(self, entity: Entity, moments: Tensor) -> None:
        """Multiply all biases of an entity likewise; `moments` are those of draw_bias_stretch."""
        by = torch.ones_like(entity.mean)
        by[-1] = draw_bias_stretch(moments, float(entity.inverse[-1, -1]), self.size + 1, self.generator)
        self._multiply(entity, by)

    def _multiply(self, entity: Entity, by: Tensor) -> None:
        """Multiply each column of the factors by an element of `by`, (d,), and their prior with them."""
        entity.factors, entity.expected = entity.factors * by, entity.expected * by
        entity.mean, entity.link = entity.mean * by, entity.link * by
        entity.inverse = entity.inverse / by / by[:, None]

    def _draw_factors(self, entity: Entity, other: Entity, starting: bool, each: Each) -> Tensor:
        """Draw the factors of one entity given the other's; returns gram.sum_errors of all its rows, (n, 6)."""
        n, d = entity.factors.shape
        noise = torch.zeros(n, d, device=self.device)
        if not starting:
            noise.normal_(generator=self.noise_generator)
        pull = entity.prior_pull(each)
        # The results of each row stand side by side: new factors, expected factors, the six sums.
        results = torch.empty(n, 2 * d + 6, device=self.device)
        new, expected, sums = results[:, :d], results[:, d : 2 * d], results[:, 2 * d :]
        if len(entity.unrated):
            root = torch.linalg.cholesky(entity.inverse)
            drawn = torch.linalg.solve_triangular(root, noise[entity.unrated], upper=False, left=False)
            expected[entity.unrated] = entity.prior_mean(entity.unrated)
            new[entity.unrated] = expected[entity.unrated] + drawn
            sums[entity.unrated] = 0
        conditional = Conditional(
            make_table(other.factors, self._weight(other)),
            self.target,
            entity.counts,
            self.noise * self._weight(entity),
            entity.inverse,
            pull,
            noise,
            entity.factors.contiguous(),
            OVERRELAXATION if self.sweeps >= self.warm_up.start + OVERRELAX_AFTER else 0.0,
            results,
            self.rest if entity is self.users and self.sessions else None,
        )
        engine = compiled if _is_compiled(self.device) else gram
        each(engine.solver(conditional), entity.chunks)
        entity.partition.gather_rows(results)
        entity.factors, entity.expected = new.contiguous(), expected.contiguous()
        return sums

    def _weight(self, entity: Entity) -> Tensor:
        return entity.precision if self.weighted else torch.ones_like(entity.precision)

    def _draw_sessions(self, sessions: SessionBias, starting: bool) -> None:
        """Draw the biases of the sessions, given what all else leaves of the ratings, and then their precisions."""
        left = self.rest.new_zeros(len(sessions.value) + 1).index_add_(0, sessions.of_rating, self.rest[:-1])[:-1]
        left = self.users.partition.sum(left)
        weight = self.noise * self._weight(self.users)
        sessions.draw(left, weight, None if starting else self.generator, self.noise_generator)
        self._subtract_sessions(sessions)

    def _subtract_sessions(self, sessions: SessionBias) -> None:
        self.target = self.ratings.clone()
        value = torch.cat((sessions.value, sessions.value.new_zeros(1)))
        self.target[:-1] -= value.index_select(0, sessions.of_rating)

    def state(self) -> dict[str, Array]:
        """Everything that a sweep changes; with what the chain was made of, it determines all later sweeps."""
        arrays = {name: getattr(holder, attribute) for name, holder, attribute in self._sampled()}
        tensors = {name: value for name, value in arrays.items() if isinstance(value, Tensor)}
        numbers = {name: np.array(value) for name, value in arrays.items() if name not in tensors}
        generators = {"generator": self.generator, "noise_generator": self.noise_generator}
        states = {name: generator.get_state() for name, generator in generators.items()}
        return numbers | {name: value.cpu().numpy().copy() for name, value in (tensors | states).items()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Set the state; raises KeyError or ValueError if it is not that of a chain like this one."""
        for name, holder, attribute in self._sampled():
            present = getattr(holder, attribute)
            if np.shape(state[name]) != np.shape(present):
                raise ValueError(f"{name} is of shape {np.shape(state[name])}, not {tuple(np.shape(present))}")
            tensor = isinstance(present, Tensor)
            value = torch.from_numpy(state[name]).to(self.device) if tensor else type(present)(state[name])
            setattr(holder, attribute, value)
        self.generator.set_state(torch.from_numpy(state["generator"]))
        self.noise_generator.set_state(torch.from_numpy(state["noise_generator"]))
        if self.sessions:
            self.sessions.add_up()
            self._subtract_sessions(self.sessions)

    def _sampled(self) -> Iterator[tuple[str, object, str]]:
        """Name in the saved state, holder and attribute of everything that a sweep changes."""
        for number in ("noise", "spread", "sweeps", "residual"):
            yield number, self, number
        for name, entity in (("users", self.users), ("items", self.items)):
            for attribute in ("factors", "precision", "link", "link_precision", "mean", "inverse", "width"):
                yield f"{name}_{attribute}", entity, attribute
        if self.sessions:
            for size, level in enumerate(self.sessions.levels):
                yield f"runs_value_{size}", level, "value"
                yield f"runs_precision_{size}", level, "precision"

    def draw(self) -> Draw:
        """The present draw."""
        users, items = self.users, self.items

        def array(values: Tensor) -> Array:
            return values.cpu().numpy().copy()

        regressors = torch.cat((items.factors[:, :-1], torch.ones_like(items.factors[:, :1])), 1)
        second = (regressors * items.counts[:, None]).T @ regressors / items.counts.sum()
        deviation = users.factors - users.expected
        return Draw(
            user_factors=array(users.expected.half()),
            user_variance=array(((deviation @ second) * deviation).sum(1)),
            item_factors=array(items.factors.half()),
            second=array(second),
            noise=self.noise,
            user_precision=array(users.precision),
            mean=array(users.mean),
            inverse=array(users.inverse),
            link=array(users.link),
            session_bias=array(self.sessions.expected) if self.sessions else np.zeros(0, np.float32),
            session_precision=self.sessions.precisions() if self.sessions else np.zeros(0),
        )
