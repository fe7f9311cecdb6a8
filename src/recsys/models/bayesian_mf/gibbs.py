"""Gibbs sampling of Bayesian matrix factorization, as batched linear algebra.

The model is that of Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte
Carlo" (ICML 2008), with five additions. Ratings are standardised; for user u and item i

    y_ui ~ N(b_u + b_i + p_u' q_i + c_ut, 1 / (tau lambda_u)),    lambda_u ~ Gamma(a, a)
    (p_u, b_u) ~ N(mu + W' f_u, Lambda^-1),                (mu, Lambda) ~ Normal-Wishart(omega)

and likewise for items. A bias is one more coordinate of its row. How large the factors are is learnt too, down to none
at all (omega, recsys.conjugate). f_u says which items a user rated, whatever the rating (recsys.coratings), and W is
the link matrix of Simm et al., "Macau" (2017), so that W' f_u is the implicit term of SVD++ (Koren 2008) as a prior
mean. lambda_u, a precision a user, is from Lakshminarayanan, Bouchard and Archambeau, "Robust Bayesian matrix
factorisation" (AISTATS 2011). c_ut ~ N(0, 1 / kappa) is a bias of the run of ratings that the user was at
(recsys.runs).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Array, Codes, Floats
from recsys.models.base.padding import cut
from recsys.models.bayesian_mf.gram import Gathered, gather, make_grams, make_table
from recsys.models.bayesian_mf.implicit_features import learn_coratings
from recsys.models.bayesian_mf.partition import Exchange, Share
from recsys.models.bayesian_mf.posterior import Sample
from recsys.models.bayesian_mf.priors import draw_gamma, draw_normal_wishart, draw_spread, draw_stretch, draw_width
from recsys.models.bayesian_mf.session_bias import RunBias, start_run_bias
from recsys.runtime.threads import Each, one_thread

# The chain starts from alternating ridge regressions with this penalty (in standardised ratings). With a weaker one the
# start is over-fitted and takes tens of sweeps to recover; with a stronger one weak factors shrink to nothing, from
# where each sweep makes them only a little larger.
START_PRECISION = 12.0
START_LINK_PRECISION = 1.5
START_SWEEPS = 6
_START_SCALE = 0.1
_START_NOISE = 1.5  # precision of a standardised rating
_START_SPREAD = 4.0  # a of Gamma(a, a): how alike users' precisions are
_CPU_CELLS, _CPU_WASTE = 1 << 15, 1 << 11  # a gathered block then stays in the processor's cache
_CPU_ROWS = 256  # of a chunk, whose square matrices then stay there too
_GPU_CELLS, _GPU_WASTE = 1 << 20, 1 << 17
_BIG = 1e12


@dataclass
class Side:
    """The users, or the items: what is fixed and what is sampled. d = embedding_size + 1."""

    counts: Tensor  # (n,)
    chunks: list[Gathered]  # of this process
    share: Share
    unrated: Tensor  # rows without a rating
    features: Tensor | None  # (n, r), with orthogonal columns; None without implicit terms
    factors: Tensor  # (n, d), the bias last
    expected: Tensor  # (n, d), the mean that the factors were last drawn around
    precision: Tensor  # (n,) lambda
    link: Tensor  # (r, d) W; of no rows without implicit terms
    link_precision: float
    mean: Tensor  # (d,) mu
    inverse: Tensor  # (d, d) Lambda
    width: float  # omega, of the prior of Lambda

    def prior_mean(self) -> Tensor:
        """(n, d) or (1, d)."""
        return self.mean[None] if self.features is None else self.mean + self.features @ self.link


class Chain:
    """A Markov chain over the factors of users and items.

    The first START_SWEEPS sweeps take conditional means under a fixed prior, as alternating least squares does; each
    later sweep draws every unknown once. The same seed gives the same chain, whatever the number of threads, and of
    processes that share it.
    """

    def __init__(
        self,
        users: Codes,
        items: Codes,
        ratings: Floats,
        n_users: int,
        n_items: int,
        *,
        embedding_size: int,
        implicit: bool,
        runs: tuple[Codes, Codes] | None = None,
        seed: int,
        device: str = "cpu",
        group: Exchange | None = None,
    ) -> None:
        """Runs are given as the user of each, (m,), and the run of every rating, (n,).

        Each process of a group is given all ratings and keeps the chunks of its share; all sweep at the same time.
        """
        self.device = torch.device(device)
        self.group = group
        self.size = embedding_size
        self.centre, self.scale = float(ratings.mean()), float(ratings.std()) or 1.0
        self.generator = torch.Generator().manual_seed(seed)
        self.noise_generator = torch.Generator(self.device).manual_seed(seed + 1)
        target = np.append((ratings - self.centre) / self.scale, 0.0)  # the last one stands for padding
        self.ratings = torch.from_numpy(target.astype(np.float32)).to(self.device)
        self.target = self.ratings  # less the biases of the runs
        self.n = len(ratings)
        self.noise = _START_NOISE
        self.spread = _START_SPREAD
        self.sweeps = 0
        self.residual = math.nan
        self.users = self._side(users, items, n_users, n_items)
        self.items = self._side(items, users, n_items, n_users)
        self.runs: RunBias | None = None
        self.rest = self.target  # of each rating less all but its run's bias, where there are runs; the last: padding
        self.projection: Tensor | None = None
        if runs:
            self.add_runs(*runs)
        if implicit:
            self.add_implicit()

    def add_implicit(self) -> None:
        """Learn from who rated what, too; the link is drawn in the next sweep."""
        with one_thread(self.device):
            learnt = learn_coratings(self.users, self.items, self.noise_generator)
        self.users.features, self.items.features, self.projection = learnt
        for side in (self.users, self.items):
            assert side.features is not None
            side.link = torch.zeros(side.features.shape[1], self.size + 1, device=self.device)

    def add_runs(self, users: Codes, of_rating: Codes) -> None:
        """Learn a bias of every run, too, given the user of each, (m,), and the run of every rating, (n,)."""
        self.runs = start_run_bias(users, of_rating, self.device)
        self.rest = torch.zeros_like(self.target)

    def _side(self, own: Codes, other: Codes, n: int, n_other: int) -> Side:
        on_cpu = self.device.type == "cpu"
        cells, waste = (_CPU_CELLS, _CPU_WASTE) if on_cpu else (_GPU_CELLS, _GPU_WASTE)
        chunks, unrated = cut(own, n, cells=cells, waste=waste, most=_CPU_ROWS if on_cpu else _GPU_CELLS)
        share = Share(chunks, self.group, self.device)
        padded = np.append(other, n_other).astype(np.int32)

        def moved(array: Array) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        d = self.size + 1
        factors = torch.randn(n, d, generator=self.noise_generator, device=self.device) * _START_SCALE
        factors[:, -1] = 0
        return Side(
            counts=moved(np.bincount(own, minlength=n).astype(np.float32)),
            chunks=[
                Gathered(
                    moved(chunk.rows),
                    tuple(moved(np.where(block < 0, self.n, block).astype(np.int32)) for block in chunk.blocks),
                    tuple(moved(padded[block]) for block in chunk.blocks),
                )
                for chunk in share.chunks
            ],
            share=share,
            unrated=moved(unrated),
            features=None,
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
        """Move every unknown once; `each` applies a function to all chunks, perhaps several at a time."""
        starting = self.sweeps < START_SWEEPS
        for side, other in ((self.items, self.users), (self.users, self.items)):
            self._draw_prior(side, starting)
            sums = self._draw_factors(side, other, starting, each)
            if starting:
                continue
            errors = sums[:, 0]
            if side is self.users:
                half_errors = self.noise * errors / 2
                self.spread = draw_spread(side.counts, half_errors, self.generator)
                shape, rate = self.spread + side.counts / 2, self.spread + half_errors
                side.precision = draw_gamma(shape, rate, self.noise_generator)
                self.residual = math.sqrt(float(errors.sum()) / self.n)
                errors = errors * side.precision
            half = torch.tensor(1 + self.n / 2)
            self.noise = float(draw_gamma(half, 1 + errors.sum().cpu() / 2, self.generator))
            if side is self.items:
                self._stretch(side, sums[:, 1:].sum(0).double().cpu() * self.noise)
        if self.runs:
            self._draw_runs(self.runs, starting)
        self.sweeps += 1

    def _draw_prior(self, side: Side, starting: bool) -> None:
        """The mean and precision of the factors, then the link from the features, given the factors."""
        explained = 0 if side.features is None else side.features @ side.link
        rest = side.factors - explained
        if starting:
            side.mean = torch.zeros_like(side.mean)
            side.mean[-1] = rest[:, -1].mean()
        else:
            mean, inverse = draw_normal_wishart(rest, self.generator, side.width)
            side.width = draw_width(inverse, self.generator)
            side.mean, side.inverse = mean.to(rest), inverse.to(rest)
        if side.features is None:
            return
        # The columns of the features are orthogonal, so the ridge regression has a diagonal inverse.
        shrunk = side.features.square().sum(0) + side.link_precision  # (r,)
        link = side.features.T @ (side.factors - side.mean) / shrunk[:, None]
        if not starting:
            root = torch.linalg.cholesky(side.inverse)
            noise = torch.randn(link.shape, generator=self.noise_generator, device=self.device)
            link += torch.linalg.solve_triangular(root, noise, upper=False, left=False) / shrunk.sqrt()[:, None]
            square = float((link @ root).square().sum())
            shape = torch.tensor(1 + link.numel() / 2)
            side.link_precision = float(draw_gamma(shape, torch.tensor(1 + square / 2), self.generator))
        side.link = link

    def _stretch(self, side: Side, moments: Tensor) -> None:
        """Draw how large all factors of a side are, their prior moving along; biases stay.

        One sweep can change the size of 50,000 numbers only a little, as each is held by the prior and the prior by
        them. Moved together, only the ratings hold them.
        """
        by = side.mean.new_full((self.size + 1,), draw_stretch(moments, side.width, self.generator))
        by[-1] = 1
        side.factors, side.mean, side.link = side.factors * by, side.mean * by, side.link * by
        side.inverse = side.inverse / by / by[:, None]
        side.width *= float(by[0]) ** 2

    def _draw_factors(
        self,
        side: Side,
        other: Side,
        starting: bool,
        each: Each,
    ) -> Tensor:
        """New factors of one side given the other's; returns three sums over each row's ratings, (n, 3).

        They are of the weighted square errors; of x^2 and of x r, where x is the product of the factors and r what
        the biases leave of the rating.

        Of each row's ratings, gathered as G = [factors of the others, 1, rest of the rating], one product G'G holds
        the Gram matrix, the right-hand side and the square sum. The Cholesky factor of it plus the prior, bordered
        by the right-hand side b, has L^-1 b in its last row, so that one triangular solve is left: (L^-1)'(L^-1 b + z).
        """
        n, d = side.factors.shape
        noise = torch.zeros(n, d, device=self.device)
        if not starting:
            noise.normal_(generator=self.noise_generator)
        prior = side.prior_mean()
        pull = (prior @ side.inverse).expand(n, d)
        # Side by side what is drawn of each row: new factors, those expected, the three sums.
        rows_drawn = torch.empty(n, 2 * d + 3, device=self.device)
        new, expected, sums = rows_drawn[:, :d], rows_drawn[:, d : 2 * d], rows_drawn[:, 2 * d :]
        if len(side.unrated):
            root = torch.linalg.cholesky(side.inverse)
            drawn = torch.linalg.solve_triangular(root, noise[side.unrated], upper=False, left=False)
            expected[side.unrated] = prior.expand(n, d)[side.unrated]
            new[side.unrated] = expected[side.unrated] + drawn
            sums[side.unrated] = 0
        table = make_table(other.factors, other.precision)
        weight = self.noise * side.precision
        target, inverse = self.target, side.inverse
        rest = self.rest if side is self.users and self.runs else None

        def solve(chunk: Gathered) -> None:
            rows = chunk.rows
            gram, gathered = make_grams(table, target, chunk)  # (rows, d + 1, d + 1)
            system = gram * weight[rows][:, None, None]
            system[:, :d, :d] += inverse
            system[:, d, :d] += pull[rows]
            system[:, d, d] = _BIG  # the last pivot is not used; this keeps it positive
            lower = torch.linalg.cholesky_ex(system)[0]
            right = torch.stack((lower[:, d, :d] + noise[rows], lower[:, d, :d]), 2)
            drawn = torch.linalg.solve_triangular(lower[:, :d, :d].mT, right, upper=True)  # (rows, d, 2)
            new[rows], expected[rows] = drawn.unbind(2)
            with_rest = torch.cat((drawn[:, :, :1], drawn.new_full((len(rows), 1, 1), -1.0)), 1)
            product = with_rest.clone()
            product[:, d - 1 :] = 0
            images = gram @ torch.cat((with_rest, product), 2)  # (rows, d + 1, 2)
            squares = (product * images).sum(1)  # x (x - r), x^2
            sums[rows, 0] = (with_rest * images[:, :, :1]).sum((1, 2))
            sums[rows, 1] = squares[:, 1]
            sums[rows, 2] = squares[:, 1] - squares[:, 0]
            if rest is not None:
                for position, places in enumerate(chunk.places):
                    block = gathered if gathered is not None else gather(table, target, chunk, position)
                    rest[places.flatten()] = -torch.bmm(block, with_rest).flatten()

        each(solve, side.chunks)
        side.share.complete(rows_drawn)
        side.factors, side.expected = new.contiguous(), expected.contiguous()
        return sums

    def _draw_runs(self, runs: RunBias, starting: bool) -> None:
        """The biases of the runs, given what the factors leave of the ratings, and their precision."""
        of_rating = runs.of_rating
        weight = (self.noise * self.users.precision).index_select(0, runs.users)  # (m,) of one rating
        left = torch.zeros_like(runs.value).index_add_(0, of_rating, self.rest[:-1])
        left = self.users.share.total(left) + runs.counts * runs.value
        precision = weight * runs.counts + runs.precision
        runs.value = runs.expected = weight * left / precision
        if not starting:
            noise = torch.randn(len(left), generator=self.noise_generator, device=self.device)
            runs.value = runs.expected + noise / precision.sqrt()
            shape, rate = torch.tensor(1 + len(left) / 2), 1 + runs.value.square().sum().cpu() / 2
            runs.precision = float(draw_gamma(shape, rate, self.generator))
        self._shift_target(runs)

    def _shift_target(self, runs: RunBias) -> None:
        self.target = self.ratings.clone()
        self.target[:-1] -= runs.value.index_select(0, runs.of_rating)

    def state(self) -> dict[str, Array]:
        """All that the next sweep depends on beside what the chain was made of."""
        arrays = {name: getattr(holder, attribute) for name, holder, attribute in self._sampled()}
        tensors = {name: value for name, value in arrays.items() if isinstance(value, Tensor)}
        numbers = {name: np.array(value) for name, value in arrays.items() if name not in tensors}
        generators = {"generator": self.generator, "noise_generator": self.noise_generator}
        states = {name: generator.get_state() for name, generator in generators.items()}
        return numbers | {name: value.cpu().numpy().copy() for name, value in (tensors | states).items()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from a state; raises KeyError or ValueError where it is not one of a chain like this."""
        for name, holder, attribute in self._sampled():
            present = getattr(holder, attribute)
            if np.shape(state[name]) != np.shape(present):
                raise ValueError(f"{name} is of shape {np.shape(state[name])}, not {tuple(np.shape(present))}")
            tensor = isinstance(present, Tensor)
            value = torch.from_numpy(state[name]).to(self.device) if tensor else type(present)(state[name])
            setattr(holder, attribute, value)
        self.generator.set_state(torch.from_numpy(state["generator"]))
        self.noise_generator.set_state(torch.from_numpy(state["noise_generator"]))
        if self.runs:
            self._shift_target(self.runs)

    def _sampled(self) -> Iterator[tuple[str, object, str]]:
        """Name, holder and attribute of everything that a sweep changes."""
        for number in ("noise", "spread", "sweeps", "residual"):
            yield number, self, number
        for name, side in (("users", self.users), ("items", self.items)):
            for attribute in ("factors", "precision", "link", "link_precision", "mean", "inverse", "width"):
                yield f"{name}_{attribute}", side, attribute
        if self.runs:
            yield "runs_value", self.runs, "value"
            yield "runs_precision", self.runs, "precision"

    def sample(self) -> Sample:
        """The chain's present place."""
        users, items = self.users, self.items

        def array(values: Tensor) -> Array:
            return values.cpu().numpy().copy()

        regressors = torch.cat((items.factors[:, :-1], torch.ones_like(items.factors[:, :1])), 1)
        second = (regressors * items.counts[:, None]).T @ regressors / items.counts.sum()
        apart = users.factors - users.expected
        return Sample(
            array(users.expected.half()),
            array(((apart @ second) * apart).sum(1)),
            array(items.factors.half()),
            array(second),
            self.noise,
            array(users.precision),
            array(users.mean),
            array(users.inverse),
            array(users.link),
            array(self.runs.expected) if self.runs else np.zeros(0, np.float32),
            self.runs.precision if self.runs else math.inf,
        )
