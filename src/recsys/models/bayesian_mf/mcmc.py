"""Running a Gibbs chain: what to keep, when enough is kept, and how the rows held out are predicted meanwhile."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Codes, Flags, Floats
from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf.gibbs import START_SWEEPS, Chain
from recsys.models.bayesian_mf.posterior import Sample
from recsys.models.bayesian_mf.warm_start import fork
from recsys.runtime.threads import Each, workers

BURN_IN = 10  # sweeps after the start that are not kept
THINNING = 2  # every second sweep is kept: neighbours are too alike to be worth their memory
# A term is tried on a chain so many sweeps after its start. Draws with and without it are compared after so many to get
# used to it, at three looks only, as every further one is another chance for luck. The gain has to be of so many
# standard errors at the last look, and of more before, as O'Brien and Fleming (1979) stop trials early.
TRIAL_AFTER, TRIAL_BURN_IN, TRIAL_LOOKS = 4, 3, (8, 16, 32)
PATIENCE = 12  # kept samples without a gain before the chain ends
_ROWS = 1 << 14  # held-out rows gathered at a time, which bounds the memory
GAIN = 1e-4  # of the ratings' standard deviation: a smaller gain counts as none


@dataclass(frozen=True)
class HeldOut:
    """Rows to follow a chain by; of those with an unknown user or item only the fallback's rating counts."""

    rows: Interactions
    known: Flags  # (n,)
    fallback: Floats  # (n,) ratings; those of known pairs are replaced
    liked: Flags  # (n,)
    scale: tuple[float, float]
    runs: Codes | None  # (n,) the run each row belongs to, -1 for none; None without runs


@dataclass(frozen=True)
class Term:
    """What may be added to a chain, and by how many standard errors it has to help."""

    add: Callable[[Chain], None]
    clear: float


@dataclass(frozen=True)
class Progress:
    """One sweep. Ratings are in their own unit."""

    sweep: int
    seconds: float
    train_rmse: float  # of the present draw; nan while starting
    sample_rmse: float | None  # of the held-out rows by the present draw
    validation_rmse: float | None  # by the mean of the kept ones; by the present one as long as there is none
    validation_auc: float | None  # likewise
    draws_kept: int  # for the model; none of those that a term is tried with


class Keeping(Protocol):
    """Keeps a chain's state (recsys.resuming, recsys.distributed.chains)."""

    def load(self, chain: Chain) -> tuple[list[Sample], list[float]]:
        """Put the chain where it was saved; the draws kept and the RMSE after each, both empty where there is none."""

    def is_due(self) -> bool:
        """Whether to save now; asked after every sweep."""

    def save(self, chain: Chain, kept: Sequence[Sample], rmse: Sequence[float]) -> None:
        """Save; what it raises ends the chain."""


def run_chain(
    chain: Chain,
    samples: int,
    *,
    stop_early: bool,
    held_out: HeldOut | None,
    on_sweep: Callable[[Progress], None],
    keeper: Keeping | None = None,
    burn_in: int = BURN_IN,
) -> list[Sample]:
    """Start, burn in, and keep every other draw; a chain that has been swept goes on from there.

    Args:
        samples: how many to keep; with `stop_early`, the most.
        stop_early: end where further samples no longer help on the held-out rows.
        on_sweep: called after every sweep; what it raises ends the chain and passes through.
        keeper: saves the chain's state from time to time, and at the end; a chain that it has goes on from there.
        burn_in: sweeps after the start that are not kept.
    """
    first = max(chain.sweeps, START_SWEEPS + burn_in)
    kept, means = keeper.load(chain) if keeper else ([], [])
    follower = _Follower(chain, held_out, kept, means) if held_out else None
    if follower and stop_early and follower.is_settled():
        return kept[:samples]
    with workers(chain.device) as each:
        while len(kept) < samples:
            started = time.perf_counter()
            chain.sweep(each)
            after = chain.sweeps - first
            keep = after > 0 and (after - 1) % THINNING == 0
            if keep:
                kept.append(chain.sample())
            on_sweep(_progress(chain, follower, keep, started, len(kept)))
            if keeper and keeper.is_due():
                keeper.save(chain, kept, follower.means if follower else [])
            if keep and stop_early and follower and follower.is_settled():
                break
    if keeper:
        keeper.save(chain, kept, follower.means if follower else [])
    return kept[:samples]


def try_terms(
    chain: Chain,
    terms: Sequence[Term],
    held_out: HeldOut,
    on_sweep: Callable[[Progress], None],
) -> Chain:
    """Start the chain and add, one after the other, the terms that clearly help; returns the chain as it is then.

    While a term is tried, `on_sweep` hears of the chain without it.
    """
    with workers(chain.device) as each:
        follower = _Follower(chain, held_out)
        while terms and chain.sweeps < START_SWEEPS + TRIAL_AFTER:
            started = time.perf_counter()
            chain.sweep(each)
            on_sweep(_progress(chain, follower, False, started))
        for term in terms:
            other = fork(chain)
            term.add(other)
            if _is_clearly_better(other, chain, term.clear, held_out, each, on_sweep):
                chain = other
    return chain


def _is_clearly_better(
    other: Chain, chain: Chain, clear: float, held_out: HeldOut, each: Each, on_sweep: Callable[[Progress], None]
) -> bool:
    """Whether the mean of the other chain's draws predicts the held-out rows better, beyond doubt."""
    follower, others = _Follower(chain, held_out), _Follower(other, held_out)
    for sweep in range(1, TRIAL_LOOKS[-1] + 1):
        started, keep = time.perf_counter(), sweep > TRIAL_BURN_IN
        other.sweep(each)
        others.follow(keep)
        chain.sweep(each)
        on_sweep(_progress(chain, follower, keep, started))
        if sweep in TRIAL_LOOKS:
            gain = follower.square_errors() - others.square_errors()
            found = standard_errors(gain, held_out.rows.users[held_out.known])
            if found > clear * math.sqrt(TRIAL_LOOKS[-1] / sweep):
                return True
            if found < 0 and sweep > TRIAL_LOOKS[0]:
                return False
    return False


def standard_errors(gain: Floats, users: Codes) -> float:
    """The mean of gains (n,) in units of its standard error; 0 if undefined. Those of one user may go together."""
    if not len(gain):
        return 0.0
    of_user = np.bincount(users, weights=gain - gain.mean())
    error = math.sqrt((of_user**2).sum())
    return float(gain.sum() / error) if error else 0.0


def _progress(chain: Chain, follower: "_Follower | None", keep: bool, started: float, kept: int = 0) -> Progress:
    present, mean, auc = follower.follow(keep) if follower else (None, None, None)
    seconds = time.perf_counter() - started
    return Progress(chain.sweeps, seconds, chain.residual * chain.scale, present, mean, auc, kept)


class _Follower:
    """Predicts the held-out rows after each sweep."""

    def __init__(
        self, chain: Chain, held_out: HeldOut, kept: Sequence[Sample] = (), means: Sequence[float] = ()
    ) -> None:
        self.chain, self.held_out = chain, held_out
        known = np.flatnonzero(held_out.known)
        self.known = known
        self.users, self.items = (
            torch.from_numpy(codes[known].astype(np.int64)).to(chain.device)
            for codes in (held_out.rows.users, held_out.rows.items)
        )
        self.runs: Tensor | None = None
        if held_out.runs is not None and chain.runs is not None:
            runs = held_out.runs[known].astype(np.int64)
            self.runs = torch.from_numpy(np.where(runs < 0, len(chain.runs.value), runs)).to(chain.device)
        self.total = np.zeros(len(known))
        self.kept = len(kept)
        self.means = list(means)  # RMSE after each kept sample
        self._shown: tuple[float, float | None] | None = None
        for sample in kept:
            arrays = sample.user_factors, sample.item_factors, sample.run_bias
            drawn_users, drawn_items, run_bias = (torch.from_numpy(array).to(chain.device) for array in arrays)
            self.total += self._predict(drawn_users.float(), drawn_items.float(), run_bias)

    def follow(self, keep: bool) -> tuple[float, float, float | None]:
        """RMSE of the present draw; RMSE and AUC of the mean of the kept ones, or of the present one without any."""
        chain = self.chain
        run_bias = chain.runs.expected if chain.runs else None
        # Rounded as they are kept, so that a chain that goes on from its kept draws has the same numbers.
        users, items = (factors.half().float() for factors in (chain.users.expected, chain.items.factors))
        rating = self._predict(users, items, run_bias)
        present = self._rmse(rating)
        if keep:
            self.total += rating
            self.kept += 1
        if self.kept and not keep and self._shown:
            return present, *self._shown  # of the same draws as before
        if self.kept:
            rating = self.total / self.kept
        mean = self._rmse(rating)
        self._shown = mean, rank_auc(self.held_out.liked[self.known], rating)
        if keep:
            self.means.append(mean)
        return present, *self._shown

    def is_settled(self) -> bool:
        """Whether the last samples brought nothing."""
        if len(self.means) <= PATIENCE:
            return False
        return min(self.means[:-PATIENCE]) - min(self.means[-PATIENCE:]) < GAIN * self.chain.scale

    def square_errors(self) -> Floats:
        """Of the known held-out rows by the mean of the kept draws, (n known,)."""
        held_out = self.held_out
        rating = np.clip(self.total / self.kept, *held_out.scale)
        return np.asarray((rating - held_out.rows.ratings[self.known]) ** 2)

    def _predict(self, users: Tensor, items: Tensor, run_bias: Tensor | None) -> Floats:
        """Ratings of the known held-out pairs by one draw."""
        drawn = torch.empty(len(self.users), device=users.device)
        for start in range(0, len(drawn), _ROWS):
            part = slice(start, start + _ROWS)
            drawn[part] = _ratings(users.index_select(0, self.users[part]), items.index_select(0, self.items[part]))
        if self.runs is not None and run_bias is not None:
            drawn += torch.cat((run_bias, drawn.new_zeros(1))).index_select(0, self.runs)
        return np.asarray(self.chain.centre + self.chain.scale * drawn.cpu().numpy().astype(np.float64))

    def _rmse(self, rating: Floats) -> float:
        held_out = self.held_out
        predicted = held_out.fallback.copy()
        predicted[self.known] = rating
        return math.sqrt(np.mean((np.clip(predicted, *held_out.scale) - held_out.rows.ratings) ** 2))


def _ratings(users: Tensor, items: Tensor) -> Tensor:
    """Standardised ratings of pairs of gathered rows, (n, d) each, the bias last."""
    product: Tensor = users * items
    product[:, -1] = users[:, -1] + items[:, -1]
    return product.sum(1)


def rank_auc(liked: Flags, score: Floats) -> float | None:
    """The AUC of scores without ties, by rank sums; None where one class is missing."""
    positive = int(liked.sum())
    negative = len(liked) - positive
    if not positive or not negative:
        return None
    ranks = np.flatnonzero(liked[np.argsort(score)]) + 1.0
    return float((ranks.sum() - positive * (positive + 1) / 2) / (positive * negative))
