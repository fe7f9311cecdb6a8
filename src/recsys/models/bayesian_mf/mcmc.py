"""Running a Gibbs chain: which draws are kept, when they are enough, and how the held-out rows are predicted."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from recsys.arrays import Flags, Floats
from recsys.data.interactions import Interactions
from recsys.models.base.recommender import Predictions
from recsys.models.bayesian_mf.backend import Table
from recsys.models.bayesian_mf.evidence import rank_auc, standard_errors
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.posterior import Draw
from recsys.models.bayesian_mf.warm_start import fork
from recsys.runtime.threads import Each, workers

# A model term is tried on a chain TRIAL_AFTER sweeps after its start. The first TRIAL_BURN_IN sweeps with the term do
# not count. Then the predictions with and without it are compared after 8, 16 and 32 sweeps only, because each further
# look is another chance to be wrong. Before the last look the gain has to be larger, as in O'Brien and Fleming (1979).
# Where neither is surely better by then, which of two costs nothing is a coin: it is looked at once more, after 64.
TRIAL_AFTER, TRIAL_BURN_IN, TRIAL_LOOKS, TRIAL_LAST = 4, 3, (8, 16, 32), 64
PATIENCE = 24  # sweeps without a gain before the chain ends
_ROWS = 1 << 14  # held-out rows gathered at a time, which bounds the memory
GAIN = 1e-4  # of the ratings' standard deviation: a smaller gain counts as none


@dataclass(frozen=True)
class HeldOut:
    """The validation rows that a chain predicts after each sweep; an unknown user or item gets the fallback rating.

    They are predicted as a server is asked, without their moment: none has a session.
    """

    rows: Interactions
    known: Flags  # (n,)
    fallback: Floats  # (n,) ratings; those of known pairs are replaced
    liked: Flags  # (n,)
    scale: tuple[float, float]
    is_told: bool = True  # whether someone is told RMSE and AUC after every sweep
    answers: dict[int, tuple[object, Predictions]] = field(default_factory=dict)
    """What recommenders, each by its identity, predict for the rows."""


@dataclass(frozen=True)
class ModelTerm:
    """A term that may be added to a chain."""

    add: Callable[[Chain, Each], None]
    standard_errors: float  # the least gain on the held-out rows for which the term stays
    costs: bool = True  # if not, and neither chain is surely better, the one with the smaller error goes on


@dataclass(frozen=True)
class SweepProgress:
    """One sweep, in the unit of the ratings."""

    sweep: int
    seconds: float
    train_rmse: float  # of this draw; NaN during the start
    sample_rmse: float | None  # of the held-out rows, predicted by this draw alone
    validation_rmse: float | None  # predicted by the mean of the kept draws, or by this draw if none is kept yet
    validation_auc: float | None  # likewise
    draws_kept: int  # for the model; draws for the trial of a term do not count


class Checkpointer(Protocol):
    """Saves a chain's state (checkpoint.py, distributed.py)."""

    def load(self, chain: Chain) -> tuple[list[Draw], list[float]]:
        """Restore the chain; returns the draws kept and the validation RMSE after each, empty if nothing was saved."""

    def is_due(self) -> bool:
        """Whether to save now; asked after every sweep."""

    def save(self, chain: Chain, kept: Sequence[Draw], rmse: Sequence[float]) -> None:
        """Save; an exception ends the chain."""


def thinning(n_ratings: int, n_rows: int, factors: int) -> int:
    """Every how many sweeps a draw is kept, of chains with these ratings by, and of, so many users and items.

    Overrelaxed draws in a row differ enough for their mean. But where there are fewer ratings than factors, the noise
    takes longer to find its level, and only a longer chain shows whether it does.
    """
    return 1 if n_ratings >= n_rows * factors else 2


def run_chain(
    chain: Chain,
    most: int,
    *,
    every: int,
    stop_early: bool,
    held_out: HeldOut | None,
    on_sweep: Callable[[SweepProgress], None],
    checkpointer: Checkpointer | None = None,
    burn_in: int | None = None,
    begun: Sequence[Draw] = (),
) -> list[Draw]:
    """Start, burn in, and keep draws; a chain that has made sweeps continues.

    Args:
        most: how many draws to keep; with `stop_early`, the largest number.
        every: as `thinning` says.
        stop_early: end when further draws no longer help on the held-out rows.
        on_sweep: called after every sweep; an exception ends the chain and is passed on.
        checkpointer: saves the chain's state from time to time and at the end; a saved chain continues from there.
        burn_in: sweeps after the start that are not kept; None: those of the chain's warm-up.
        begun: draws that this chain has made; half of those to keep may be of them.
    """
    first = max(chain.sweeps, chain.warm_up.start + (chain.warm_up.burn_in if burn_in is None else burn_in))
    loaded, means = checkpointer.load(chain) if checkpointer else ([], [])
    kept = loaded or list(begun[max(len(begun) - most // 2, 0) :])
    with workers(chain.backend.device) as each:
        predictions = HeldOutPredictions(chain, held_out, each, kept, means) if held_out else None
        if loaded and stop_early and predictions and predictions.is_settled(every):
            return kept[:most]
        while len(kept) < most:
            started = time.perf_counter()
            chain.sweep(each)
            after = chain.sweeps - first
            keep = after > 0 and (after - 1) % every == 0
            if keep:
                kept.append(chain.draw())
            on_sweep(_progress(chain, predictions, keep, started, len(kept)))
            if checkpointer and checkpointer.is_due():
                checkpointer.save(chain, kept, predictions.means if predictions else [])
            if keep and stop_early and predictions and predictions.is_settled(every):
                break
    if checkpointer:
        checkpointer.save(chain, kept, predictions.means if predictions else [])
    return kept[:most]


def try_terms(
    chain: Chain,
    terms: Sequence[ModelTerm],
    held_out: HeldOut,
    on_sweep: Callable[[SweepProgress], None],
    every: int,
) -> tuple[Chain, list[Draw]]:
    """Start the chain and add, one after the other, the terms that clearly help.

    While a term is tried, `on_sweep` is told of the chain without it.

    Returns:
        The chain with these terms, and draws that it made, past its burn-in, while others were refused; none where
        not every draw is kept.
    """
    kept: list[Draw] = []
    with workers(chain.backend.device) as each:
        predictions = HeldOutPredictions(chain, held_out, each)
        while terms and chain.sweeps < chain.warm_up.start + TRIAL_AFTER:
            started = time.perf_counter()
            chain.sweep(each)
            on_sweep(_progress(chain, predictions, False, started))
        for term in terms:
            other = fork(chain)
            term.add(other, each)
            made: list[Draw] = []

            def keep_and_tell(progress: SweepProgress, chain: Chain = chain, made: list[Draw] = made) -> None:
                on_sweep(progress)
                if chain.sweeps > chain.warm_up.start + chain.warm_up.burn_in:
                    made.append(chain.draw())

            if _is_kept(term, other, chain, held_out, each, keep_and_tell):
                chain, kept = other, []
            elif every == 1:  # else draws are few to tell whether the chain settles: none of its beginning
                kept += made
    return chain, kept


def _is_kept(
    term: ModelTerm,
    other: Chain,
    chain: Chain,
    held_out: HeldOut,
    each: Each,
    on_sweep: Callable[[SweepProgress], None],
) -> bool:
    """Whether a term stays, by the mean predictions of the held-out rows of the other chain, which has it."""
    predictions = HeldOutPredictions(chain, held_out, each)
    others = HeldOutPredictions(other, replace(held_out, is_told=False), each)
    found = 0.0
    for sweep in range(1, (TRIAL_LOOKS[-1] if term.costs else TRIAL_LAST) + 1):
        started, keep = time.perf_counter(), sweep > TRIAL_BURN_IN
        other.sweep(each)
        if keep:
            others.add_sweep(True)
        chain.sweep(each)
        on_sweep(_progress(chain, predictions, keep, started))
        if sweep in (*TRIAL_LOOKS, TRIAL_LAST):
            gain = predictions.square_errors() - others.square_errors()
            found = standard_errors(gain, held_out.rows.users[held_out.known])
            decided = decide(found, sweep, term)
            if decided is not None:
                return decided
    return False


def decide(found: float, sweep: int, term: ModelTerm) -> bool | None:
    """Whether a term stays that has gained so many standard errors when a trial is looked at; None: to be seen.

    A term that costs something is refused unless it surely helps; at the first look only if it surely does harm. Of one
    that does not, either answer has to be sure; by the last look the better one is taken.
    """
    if sweep == TRIAL_LAST:
        return found > 0
    bound = term.standard_errors * math.sqrt(TRIAL_LOOKS[-1] / sweep)
    if abs(found) > bound:
        return found > 0
    if term.costs and (sweep == TRIAL_LOOKS[-1] or (found < 0 and sweep > TRIAL_LOOKS[0])):
        return False
    return None


def _progress(
    chain: Chain, predictions: "HeldOutPredictions | None", keep: bool, started: float, kept: int = 0
) -> SweepProgress:
    present, mean, auc = None, None, None
    if predictions and (keep or predictions.held_out.is_told):
        present, mean, auc = predictions.add_sweep(keep)
    seconds = time.perf_counter() - started
    return SweepProgress(chain.sweeps, seconds, chain.residual * chain.scale, present, mean, auc, kept)


class HeldOutPredictions:
    """Predicts the held-out rows after each sweep."""

    def __init__(
        self,
        chain: Chain,
        held_out: HeldOut,
        each: Each,
        kept: Sequence[Draw] = (),
        means: Sequence[float] = (),
    ) -> None:
        self.chain, self.held_out, self.each = chain, held_out, each
        known = np.flatnonzero(held_out.known)
        self.known = known
        self.users, self.items = (
            chain.backend.table(codes[known].astype(np.int32)) for codes in (held_out.rows.users, held_out.rows.items)
        )
        self._truth = held_out.rows.ratings[known]
        wrong = (np.clip(held_out.fallback, *held_out.scale) - held_out.rows.ratings) ** 2
        self._unknown = float(wrong[~held_out.known].sum())
        self.total = np.zeros(len(known))
        self.kept = 0
        self.means = list(means)  # RMSE after each kept draw
        self._shown: tuple[float, float | None] | None = None
        for draw in kept:
            factors = draw.user_factors, draw.item_factors
            self.total += self._predict(*(chain.backend.table(one.astype(np.float32)) for one in factors))
            self.kept += 1
            if self.kept > len(self.means):
                self.means.append(self._rmse(self.total / self.kept))

    def add_sweep(self, keep: bool) -> tuple[float, float, float | None]:
        """RMSE of this draw; RMSE and AUC of the mean of the kept draws, or of this draw if none is kept yet."""
        chain = self.chain
        # Rounded as kept draws are, so that a chain that continues from them has the same numbers.
        users, items = map(chain.backend.round_half, (chain.users.expected, chain.items.factors))
        rating = self._predict(users, items)
        present = self._rmse(rating)
        if keep:
            self.total += rating
            self.kept += 1
        if self.kept and not keep and self._shown:
            return present, *self._shown  # of the same draws as before
        if self.kept:
            rating = self.total / self.kept
        mean = self._rmse(rating)
        self._shown = mean, rank_auc(self.held_out.liked[self.known], rating) if self.held_out.is_told else None
        if keep:
            self.means.append(mean)
        return present, *self._shown

    def is_settled(self, every: int) -> bool:
        """Whether the draws of the last PATIENCE sweeps, of so many one, did not help."""
        late = PATIENCE // every
        if len(self.means) <= late:
            return False
        return min(self.means[:-late]) - min(self.means[-late:]) < GAIN * self.chain.scale

    def square_errors(self) -> Floats:
        """Squared errors of the known held-out rows, predicted by the mean of the kept draws, (n known,)."""
        held_out = self.held_out
        rating = np.clip(self.total / self.kept, *held_out.scale)
        return np.asarray((rating - held_out.rows.ratings[self.known]) ** 2)

    def _predict(self, users: Table, items: Table) -> Floats:
        """Ratings of the known held-out pairs by one draw."""
        backend = self.chain.backend
        drawn = backend.zeros(len(self.users))

        def predict(start: int) -> None:
            part = slice(start, start + _ROWS)
            drawn[part] = backend.rate_pairs(users, items, self.users[part], self.items[part])

        self.each(predict, range(0, len(drawn), _ROWS))
        return np.asarray(self.chain.centre + self.chain.scale * backend.array(drawn).astype(np.float64))

    def _rmse(self, rating: Floats) -> float:
        wrong = np.clip(rating, *self.held_out.scale) - self._truth
        return math.sqrt((float(np.square(wrong).sum()) + self._unknown) / len(self.held_out.rows))
