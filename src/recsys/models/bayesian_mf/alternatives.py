"""What takes the place of the whole model where that does as well: factors without terms, or biases.

Each is kept on the evidence of the validation rows only (evidence.py).
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recsys.data.interactions import Interactions
from recsys.models.base.biases import Biases, learn_biases
from recsys.models.base.calibration import LikeCalibration, calibrate
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.constancy import STRENGTHS, learn_constancy
from recsys.models.bayesian_mf.evidence import (
    CLEAR,
    CLEAR_OF_MANY,
    auc_standard_errors,
    has_settled,
    is_clearly_better,
    log_losses,
    standard_errors,
)
from recsys.models.bayesian_mf.posterior import Draw, pack_draws
from recsys.models.bayesian_mf.recommender import BayesianRecommender
from recsys.models.bayesian_mf.sessions import NO_SESSIONS, Sessions
from recsys.models.bayesian_mf.threshold import learn_threshold

if TYPE_CHECKING:
    from recsys.models.bayesian_mf.distributed import ContextCollective
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import HeldOut, SweepProgress

_DAMPINGS = (1.0, 2.0, 3.0)  # of biases, tried in place of that of the baseline


def simplest_that_does(
    sampled: BayesianRecommender,
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    seed: int,
    held_out: "HeldOut",
    collective: "ContextCollective | None",
    levels: tuple[float, float],
) -> BayesianRecommender:
    """`sampled`, or what has fewer terms where that clearly does as well: factors alone, sampled biases, damped biases.

    Factors alone are tried too where `sampled` is not clearly better than biases in all that is measured.

    Args:
        levels: the levels of ratings between which the threshold of a like lies.
    """

    def sample(limit: float | None = None) -> BayesianRecommender:
        found = sample_apart(knowledge, rows, config, seed, held_out, collective, sum(levels) / 2, limit)
        set_threshold(found, held_out, *levels)
        return choose_fallback(found, held_out)

    biases = sample()
    plain = copy.copy(biases)
    plain.knowledge, plain.is_plain, plain.own_fallback = knowledge, True, False

    def is_kept(factors: BayesianRecommender, least: float = CLEAR) -> bool:
        return all(_is_clearly_better(factors, simpler, held_out, least) for simpler in (biases, plain))

    does_well = has_settled(sampled.draws.precision.tolist()) and is_kept(sampled)
    if does_well and all(min(_gains(sampled, simpler, held_out)) >= CLEAR for simpler in (biases, plain)):
        return sampled
    bounded = sample(limit=float(biases.draws.precision.mean()))
    if does_well:
        return bounded if _is_clearly_better(bounded, sampled, held_out) else sampled
    if is_kept(bounded, CLEAR_OF_MANY):
        return bounded
    tried = [(biases, CLEAR), *((one, CLEAR_OF_MANY) for one in _other_biases(biases, rows, held_out))]
    better = [one for one, least in tried if _is_clearly_better(one, plain, held_out, least)]
    return best_of(better, held_out) if better else plain


def best_of(candidates: Sequence[BayesianRecommender], held_out: "HeldOut") -> BayesianRecommender:
    """The one whose squared error times logarithmic loss of likes is least on the validation rows; the first of equals.

    A relative gain in either counts alike. Draws and their means expect the same ratings, so that their squared errors
    would leave to chance which of them tells likes.
    """

    def losses(one: BayesianRecommender) -> tuple[float, float]:
        square, like = _square_error(one, held_out), _answer(one, held_out).like_probability
        return square * float(log_losses(held_out.liked, like).mean()), square  # the latter where all likes are told

    return min(candidates, key=losses)


def _other_biases(
    biases: BayesianRecommender, rows: Interactions, held_out: "HeldOut"
) -> Iterator[BayesianRecommender]:
    """The means of sampled biases, and biases that are damped less; each with a curve of likes of its own."""
    yield average(biases, _calibrated(average(biases, biases.knowledge.calibration), held_out))
    for damping in _DAMPINGS:
        made = damp(biases, rows, damping, biases.knowledge.calibration)
        yield damp(biases, rows, damping, _calibrated(made, held_out))


def average(sampled: BayesianRecommender, calibration: LikeCalibration) -> BayesianRecommender:
    """Sampled biases, whose mean over the draws predicts as damped biases do: a like has one curve for all users.

    Where many users give one rating only, the noise of each user's own says too much of what they like.
    """
    mean, user, item = sampled.draws.of_the_unknown()
    averaged = copy.copy(sampled)
    biases = Biases(sampled.centre + sampled.unit * mean, sampled.unit * (user - mean), sampled.unit * (item - mean))
    averaged.knowledge = replace(sampled.knowledge, biases=biases, calibration=calibration)
    averaged.is_plain, averaged.averaged, averaged.own_fallback = True, True, False
    return averaged


def damp(
    sampled: BayesianRecommender, rows: Interactions, damping: float, calibration: LikeCalibration
) -> BayesianRecommender:
    """Biases of another damping: where most users always give one rating, a few ratings tell it."""
    damped = copy.copy(sampled)
    sizes = len(sampled.knowledge.user_ids), len(sampled.knowledge.item_ids)
    biases = learn_biases(rows.users, rows.items, rows.ratings, *sizes, damping)
    damped.knowledge = replace(sampled.knowledge, biases=biases, calibration=calibration)
    damped.is_plain, damped.damping, damped.own_fallback = True, damping, False
    return damped


def _calibrated(plain: BayesianRecommender, held_out: "HeldOut") -> LikeCalibration:
    """The curve of likes over the ratings that biases expect, learnt on the validation rows."""
    return calibrate(plain.score(held_out.rows.users, held_out.rows.items).rating, held_out.liked)


def sample_apart(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    seed: int,
    held_out: "HeldOut | None",
    collective: "ContextCollective | None",
    threshold: float,
    limit: float | None = None,
) -> BayesianRecommender:
    """Biases alone, or with a limit factors too, in a chain of its own without any other term.

    Each user's noise says how sure a prediction is, and does not weigh ratings. Else a user whose few ratings are all
    equal has almost no noise and says that all items are equal.

    Args:
        limit: what the precision of a rating may be at most. Factors may fit the ratings of users who always give the
            same one without any noise. If the noise of all shrinks by that, nothing keeps factors from fitting that of
            the others.
    """
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import run_chain, thinning

    def on_sweep(progress: "SweepProgress") -> None:
        if collective is not None:
            collective.raise_if_stopped()

    sizes = len(knowledge.user_ids), len(knowledge.item_ids)
    factors = 0 if limit is None else config.embedding_size
    chain = Chain(rows, sizes, config.model_copy(update={"embedding_size": factors}), seed, collective)
    if held_out is not None:
        held_out = replace(held_out, is_told=False)
    chain.weighted, chain.noise_limit = False, math.inf if limit is None else limit
    every = thinning(len(rows), sum(sizes), config.embedding_size)
    kept = run_chain(chain, config.samples, every=every, stop_early=True, held_out=held_out, on_sweep=on_sweep)
    sampled = pack(knowledge, config, chain, kept, NO_SESSIONS, threshold)
    sampled.noise_limit = chain.noise_limit
    return sampled


def draw_to_levels(chosen: BayesianRecommender, rows: Interactions, held_out: "HeldOut") -> BayesianRecommender:
    """`chosen`, with the predictions for users who always give the same rating drawn to it where that is better."""
    tried = [with_constancy(chosen, rows, strength) for strength in STRENGTHS]
    asked = held_out.rows.users[held_out.known]
    if not any(one.constancy.weight[asked].any() for one in tried if one.constancy):
        return chosen  # all answers are the same
    best = min(tried, key=lambda one: _square_error(one, held_out))
    return best if _is_clearly_better(best, chosen, held_out, CLEAR_OF_MANY) else chosen


def choose_noise(
    chosen: BayesianRecommender, rows: Interactions, held_out: "HeldOut", levels: tuple[float, float]
) -> BayesianRecommender:
    """`chosen`, or the same with one noise for all users where that clearly tells likes better on validation rows.

    Where most ratings are at the highest level, a user's noise is cut off there, and says little of how sure a like is.
    """
    if chosen.is_plain:
        return chosen
    other = with_common_noise(chosen, rows)
    set_threshold(other, held_out, *levels)
    return other if _is_clearly_better(other, chosen, held_out, CLEAR_OF_MANY) else chosen


def with_common_noise(sampled: BayesianRecommender, rows: Interactions) -> BayesianRecommender:
    """The same, but that the noise of every user is the mean over the ratings learnt from."""
    other, noise = copy.copy(sampled), sampled.draws.noise
    other.draws = replace(sampled.draws, noise=np.full_like(noise, noise[rows.users].mean()))
    other.common_noise = True
    return other


def with_constancy(one: BayesianRecommender, rows: Interactions, strength: float) -> BayesianRecommender:
    """The same with that strength; 0: without."""
    drawn = copy.copy(one)
    drawn.constancy = learn_constancy(rows, len(one.knowledge.user_ids), strength) if strength else None
    return drawn


def pack(
    knowledge: Knowledge, config: Config, chain: "Chain", kept: list[Draw], sessions: Sessions, threshold: float
) -> BayesianRecommender:
    """A recommender of the draws that a chain kept."""
    projection = None if chain.projection is None else chain.projection.cpu().numpy()
    if chain.sessions:
        draws = pack_draws(kept, projection, sessions, chain.sessions.counts.cpu().numpy())
    else:
        draws = pack_draws(kept, projection, NO_SESSIONS, np.zeros(0))
    return BayesianRecommender(knowledge, config, draws, chain.centre, chain.scale, threshold, chain.weighted)


def set_threshold(recommender: BayesianRecommender, held_out: "HeldOut", low: float, high: float) -> None:
    """Set the threshold between two levels of ratings by the validation rows, asked without their moment."""
    known = held_out.known
    mean, variance = recommender.draws.predict(held_out.rows.users[known], held_out.rows.items[known])
    rating, spread = recommender.centre + recommender.unit * mean, recommender.unit * np.sqrt(variance)
    recommender.threshold = learn_threshold(rating, spread, held_out.liked[known], low, high)


def choose_fallback(sampled: BayesianRecommender, held_out: "HeldOut") -> BayesianRecommender:
    """`sampled`, or the same with a user's rating of an unknown item from the draws, where that is clearly better."""
    other = with_own_fallback(sampled)
    return other if _is_clearly_better(other, sampled, held_out) else sampled


def with_own_fallback(sampled: BayesianRecommender) -> BayesianRecommender:
    """The same, but that a user is expected to rate an unknown item as the known ones on average, by the draws.

    Damped biases say so with a damping that is the same for all sets. What they say of an unknown user's rating stays:
    there it is how items are ordered.
    """
    other = copy.copy(sampled)
    damped = sampled.knowledge.biases
    of_user = sampled.centre + sampled.unit * sampled.draws.of_the_unknown()[1]
    biases = replace(damped, user=of_user - damped.mean)
    other.knowledge = replace(sampled.knowledge, biases=biases)
    other.own_fallback = True
    return other


def _square_error(one: BayesianRecommender, held_out: "HeldOut") -> float:
    """The mean on the validation rows."""
    return float(np.mean((_answer(one, held_out).rating - held_out.rows.ratings) ** 2))


def _answer(one: BayesianRecommender, held_out: "HeldOut") -> Predictions:
    """The predictions for the validation rows, made once: to read all draws takes long."""
    if id(one) not in held_out.answers:
        held_out.answers[id(one)] = one, one.score(held_out.rows.users, held_out.rows.items)
    return held_out.answers[id(one)][1]


def _is_clearly_better(
    one: BayesianRecommender, other: BayesianRecommender, held_out: "HeldOut", least: float = CLEAR
) -> bool:
    """Whether one predicts the validation rows better than the other, beyond chance, as a server is asked."""
    return is_clearly_better(*_gains(one, other, held_out), least=least)


def _gains(one: BayesianRecommender, other: BayesianRecommender, held_out: "HeldOut") -> tuple[float, float, float]:
    """By how many standard errors one is better on the validation rows: in squared error, loss of likes and AUC."""
    rows, liked = held_out.rows, held_out.liked
    one_rating, one_like = _answer(one, held_out)
    rating, like = _answer(other, held_out)
    users = rows.users + 1  # those without a code, whose predictions are the same, are one user here
    return (
        standard_errors((rating - rows.ratings) ** 2 - (one_rating - rows.ratings) ** 2, users),
        standard_errors(log_losses(liked, like) - log_losses(liked, one_like), users),
        auc_standard_errors(liked, one_like, like, users),
    )
