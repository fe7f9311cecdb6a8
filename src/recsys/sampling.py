"""Running a Gibbs chain: what to keep, when enough is kept, and how the rows held out are predicted meanwhile."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Codes, Flags, Floats
from recsys.dataset import Interactions
from recsys.gibbs import START_SWEEPS, Chain, Sample
from recsys.resuming import Keeper
from recsys.workers import workers

BURN_IN = 8  # sweeps after the start that are not kept
THINNING = 2  # every second sweep is kept: neighbours are too alike to be worth their memory
PATIENCE = 8  # kept samples without a gain before the chain ends
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
class Progress:
    """One sweep. Ratings are in their own unit."""

    sweep: int
    seconds: float
    train_rmse: float  # of the present draw; nan while starting
    sample_rmse: float | None  # of the held-out rows by the present draw
    validation_rmse: float | None  # by the mean of the kept ones; by the present one as long as there is none
    validation_auc: float | None  # by the mean of the kept ones


def run_chain(
    chain: Chain,
    samples: int,
    *,
    stop_early: bool,
    held_out: HeldOut | None,
    on_sweep: Callable[[Progress], None],
    keeper: Keeper | None = None,
) -> list[Sample]:
    """Start, burn in, and keep every other draw.

    Args:
        samples: how many to keep; with `stop_early`, the most.
        stop_early: end where further samples no longer help on the held-out rows.
        on_sweep: called after every sweep; what it raises ends the chain and passes through.
        keeper: saves the chain's state from time to time, and at the end; a chain that it has goes on from there.
    """
    kept, means = keeper.load(chain) if keeper else ([], [])
    follower = _Follower(chain, held_out, kept, means) if held_out else None
    if follower and stop_early and follower.is_settled():
        return kept[:samples]
    with workers(chain.device) as each:
        while len(kept) < samples:
            started = time.perf_counter()
            chain.sweep(each)
            after = chain.sweeps - START_SWEEPS - BURN_IN
            keep = after > 0 and (after - 1) % THINNING == 0
            if keep:
                kept.append(chain.sample())
            present, mean, auc = follower.follow(keep) if follower else (None, None, None)
            train_rmse = chain.residual * chain.scale
            on_sweep(Progress(chain.sweeps, time.perf_counter() - started, train_rmse, present, mean, auc))
            if keeper and keeper.is_due():
                keeper.save(chain, kept, follower.means if follower else [])
            if keep and stop_early and follower and follower.is_settled():
                break
    if keeper:
        keeper.save(chain, kept, follower.means if follower else [])
    return kept[:samples]


def start_rmse(chain: Chain, held_out: HeldOut) -> float:
    """The held-out RMSE that the chain starts from; makes the starting sweeps."""
    follower = _Follower(chain, held_out)
    with workers(chain.device) as each:
        while chain.sweeps < START_SWEEPS:
            chain.sweep(each)
        return follower.follow(keep=False)[0]


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
        for sample in kept:
            arrays = sample.user_factors, sample.item_factors, sample.run_bias
            drawn_users, drawn_items, run_bias = (torch.from_numpy(array).to(chain.device) for array in arrays)
            self.total += self._predict(drawn_users, drawn_items, run_bias)

    def follow(self, keep: bool) -> tuple[float, float, float | None]:
        """RMSE of the present draw and of the mean of the kept ones, and the mean's AUC where one was just kept."""
        chain = self.chain
        run_bias = chain.runs.value if chain.runs else None
        rating = self._predict(chain.users.factors, chain.items.factors, run_bias)
        present = self._rmse(rating)
        if keep:
            self.total += rating
            self.kept += 1
        if not self.kept:
            return present, present, None
        rating = self.total / self.kept
        mean = self._rmse(rating)
        if not keep:
            return present, mean, None
        self.means.append(mean)
        return present, mean, rank_auc(self.held_out.liked[self.known], rating)

    def is_settled(self) -> bool:
        """Whether the last samples brought nothing."""
        if len(self.means) <= PATIENCE:
            return False
        return min(self.means[:-PATIENCE]) - min(self.means[-PATIENCE:]) < GAIN * self.chain.scale

    def _predict(self, users: Tensor, items: Tensor, run_bias: Tensor | None) -> Floats:
        """Ratings of the known held-out pairs by one draw."""
        drawn = _ratings(users.index_select(0, self.users), items.index_select(0, self.items))
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
