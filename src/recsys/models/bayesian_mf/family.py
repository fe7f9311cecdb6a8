"""Bayesian matrix factorization, sampled rather than optimised (Salakhutdinov and Mnih 2008).

A rating is a user and an item bias and the inner product of their factors. Draws from the posterior of all of them are
kept (gibbs.py, in PyTorch), and predictions are averaged over the draws. The spread of the draws and their noise give
the posterior predictive distribution; from it come the probability of a like and the standard deviation.

A session is cut in sessions.py. The like threshold is learnt in threshold.py.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.arrays import Codes
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.padding import stable_argsort
from recsys.models.bayesian_mf.alternatives import (
    average,
    choose_fallback,
    choose_noise,
    damp,
    draw_to_levels,
    pack,
    sample_apart,
    set_threshold,
    simplest_that_does,
    with_common_noise,
    with_constancy,
    with_own_fallback,
)
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.evidence import REFIT_GROWTH, has_settled
from recsys.models.bayesian_mf.recommender import BayesianRecommender
from recsys.models.bayesian_mf.sessions import NO_SESSIONS, Sessions, cut_sessions, drop_single_sessions
from recsys.models.bayesian_mf.threshold import adjacent_levels

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.models.bayesian_mf.distributed import ContextCollective
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import Checkpointer, HeldOut, SweepProgress
    from recsys.models.bayesian_mf.posterior import Draw
    from recsys.runtime.threads import Each

# Spared are the start, the burn-in, and some draws to average.
CAPABILITIES = Capabilities(shardings=("none",), folds_in=True, spared_reports=30, rounds="samples")
# Least gain on the validation rows, in standard errors, for which a term stays. Session biases that tell nothing are
# shrunk to 0 by their own precision; the implicit term costs accuracy where it tells nothing.
_IMPLICIT_GAIN, _TIME_GAIN, _USER_NOISE_GAIN = 2.0, 1.0, 1.0
_EXACT = 1 / 8  # precision of the noise by number of ratings: 1 / 2 where there are no errors
_WARM_START_BURN_IN = 6  # sweeps of a chain that begins where another ended


def fit(knowledge: Knowledge, rows: Interactions, config: Config, options: FitOptions) -> BayesianRecommender:
    """Sample until further draws no longer help on the validation rows, or as many draws as the first fit kept.

    The terms are those that help on the validation rows. Where biases alone do as well as factors and all else, or the
    chain of these does not settle, factors without terms are tried, whose noise is at least that of biases; and where
    these do not help, biases alone are sampled. The second fit keeps the first fit's terms and threshold.
    Processes that train together share one chain.

    Raises:
        InputError: if a GPU is asked for and there is none; StoppedError if a process was told to stop.
    """
    from recsys.models.bayesian_mf.mcmc import run_chain, thinning  # PyTorch takes seconds to import

    validation = options.validation
    first = options.warm_start if isinstance(options.warm_start, BayesianRecommender) else None
    _check(config, options, _has_times(rows, validation))
    rows = rows[stable_argsort(rows.users)]  # the ratings of a user are then read one after the other
    is_timed = first.time if first else config.time == "true" or (config.time == "auto" and validation is not None)
    sessions, of_rating = _cut_sessions(rows, validation) if is_timed else (NO_SESSIONS, None)
    held_out = None if validation is None else _held_out(knowledge, validation, options.report is not None)
    collective = _collective(options)

    def on_sweep(progress: "SweepProgress") -> None:
        if options.report is not None and validation is not None:
            options.report(progress.sweep, _measured(progress))

    timed = None if of_rating is None else (sessions.users, of_rating)
    begun: list[Draw] = []
    every = thinning(len(rows), len(knowledge.user_ids) + len(knowledge.item_ids), config.embedding_size)
    chain = _start_chain(knowledge, rows, config, options.seed, first, timed, collective)
    if first:
        _continue_from(chain, first, knowledge)
        chain.noise_limit = first.noise_limit
    elif held_out is not None:
        chain, begun = _try_terms(chain, config, timed, held_out, on_sweep, collective, every)
    most = len(first.draws) if first else config.samples
    parts = [rows] if validation is None else [rows, validation]
    kept = run_chain(
        chain,
        most,
        every=every,
        stop_early=first is None,
        held_out=held_out,
        on_sweep=on_sweep,
        checkpointer=_checkpointer(chain, config, options.seed, parts, collective, most),
        burn_in=_WARM_START_BURN_IN if first else None,
        begun=begun,
    )
    is_left_open = first is None and not _has_set_terms(config)
    if held_out is not None and is_left_open and not has_settled([draw.noise for draw in kept]):
        later = _go_on(chain, most, every, held_out, on_sweep, collective)
        begin = [draw.noise for draw in kept[: max(len(kept) // 3, 1)]]
        if np.mean([draw.noise for draw in later]) < REFIT_GROWTH * np.mean(begin):
            kept = later
    low, high = adjacent_levels(rows.ratings, knowledge.like_threshold)
    middle = first.threshold if first else (low + high) / 2
    sampled = pack(knowledge, config, chain, kept, sessions, middle)
    sampled.noise_limit = chain.noise_limit
    if held_out is None:
        if first and sampled.factors and not _has_set_terms(config) and not _is_as_before(sampled, first, len(rows)):
            sampled = sample_apart(knowledge, rows, config, options.seed, None, collective, first.threshold)
        return _answering_as(first, sampled, rows) if first else sampled
    set_threshold(sampled, held_out, low, high)
    if first:
        return _answering_as(first, sampled, rows)
    sampled = choose_fallback(sampled, held_out)
    levels = low, high
    if _has_set_terms(config):
        return choose_noise(sampled, rows, held_out, levels)
    chosen = simplest_that_does(sampled, knowledge, rows, config, options.seed, held_out, collective, levels)
    return draw_to_levels(choose_noise(chosen, rows, held_out, levels), rows, held_out)


def _go_on(
    chain: "Chain",
    most: int,
    every: int,
    held_out: "HeldOut",
    on_sweep: "Callable[[SweepProgress], None]",
    collective: "ContextCollective | None",
) -> "list[Draw]":
    """The draws that follow, of a chain that has not settled: it may still do so, or its noise has only wandered."""
    from recsys.models.bayesian_mf.mcmc import run_chain

    def on_later_sweep(progress: "SweepProgress") -> None:
        on_sweep(progress)
        if collective is not None:
            collective.raise_if_stopped()

    return run_chain(chain, most, every=every, stop_early=True, held_out=held_out, on_sweep=on_later_sweep, burn_in=0)


def _answering_as(first: BayesianRecommender, sampled: BayesianRecommender, rows: Interactions) -> BayesianRecommender:
    """The second fit, which predicts by what the first one chose: the draws, their means, or damped biases."""
    if first.common_noise:
        sampled = with_common_noise(sampled, rows)
    if first.constancy is not None:
        sampled = with_constancy(sampled, rows, first.constancy.strength)
    if first.averaged:
        return average(sampled, first.knowledge.calibration)
    if first.damping:
        return damp(sampled, rows, first.damping, first.knowledge.calibration)
    if first.own_fallback:
        return with_own_fallback(sampled)
    sampled.is_plain = first.is_plain
    return sampled


def _has_set_terms(config: Config) -> bool:
    """Whether the settings ask for a term that biases alone do not have."""
    return "true" in (config.implicit, config.time)


def _is_as_before(second: BayesianRecommender, first: BayesianRecommender, n_ratings: int) -> bool:
    """Whether the second fit's chain is where the first one's was: else validation has not seen what it is now.

    Where both explain the ratings almost without error, the noise is what its prior leaves, and its precision grows
    with the number of ratings.
    """
    if min(first.draws.precision.mean(), second.draws.precision.mean()) > _EXACT * n_ratings:
        return True
    return has_settled([*first.draws.precision.tolist(), *second.draws.precision.tolist()], REFIT_GROWTH)


def _cut_sessions(rows: Interactions, validation: Interactions | None) -> tuple[Sessions, Codes | None]:
    """The sessions, and that of each rating; none where ratings, or validation rows, have no times, or are too few."""
    if rows.timestamps is None or not _has_times(rows, validation):
        return NO_SESSIONS, None
    sessions, of_rating = drop_single_sessions(*cut_sessions(rows.users, rows.timestamps))
    return (sessions, of_rating) if len(sessions) else (NO_SESSIONS, None)


def _has_times(rows: Interactions, validation: Interactions | None) -> bool:
    return rows.timestamps is not None and (validation is None or validation.timestamps is not None)


def _check(config: Config, options: FitOptions, has_time: bool) -> None:
    from recsys.runtime.device import has_gpu

    if options.context is not None and config.chain != "none":
        raise InputError(
            f"parameter 'chain': none where a training keeps checkpoints of its own (as with processes, nodes and "
            f"resume), got {config.chain!r}"
        )
    if config.device == "cuda" and not has_gpu():
        raise InputError("parameter 'device': cuda needs a GPU that PyTorch can use, found none; pass device=auto")
    if config.time == "true" and not has_time:
        raise InputError(
            "parameter 'time': true needs ratings with timestamps, these have none; name their column by "
            "-P timestamp_column=…, or pass time=auto"
        )


def _collective(options: FitOptions) -> "ContextCollective | None":
    if options.context is None:
        return None
    from recsys.models.bayesian_mf.distributed import ContextCollective

    return ContextCollective(options.context)


def _start_chain(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    seed: int,
    first: BayesianRecommender | None,
    timed: tuple[Codes, Codes] | None,
    collective: "ContextCollective | None",
) -> "Chain":
    """A new chain with the terms that need no trial."""
    from recsys.models.bayesian_mf.gibbs import Chain

    if first:
        config = config.model_copy(update={"embedding_size": first.factors})
    chain = Chain(rows, (len(knowledge.user_ids), len(knowledge.item_ids)), config, seed, collective)
    chain.weighted = first.user_noise if first else config.user_noise == "true"
    if timed and (first.time if first else config.time == "true"):
        chain.add_sessions(*timed)
    if first.implicit if first else config.implicit == "true":
        chain.add_implicit()
    return chain


def _try_terms(
    chain: "Chain",
    config: Config,
    timed: tuple[Codes, Codes] | None,
    held_out: "HeldOut",
    on_sweep: "Callable[[SweepProgress], None]",
    collective: "ContextCollective | None",
    every: int,
) -> "tuple[Chain, list[Draw]]":
    """The chain with those terms that the settings leave open and that help on the validation rows; draws it made."""
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import ModelTerm, try_terms

    def on_trial(progress: "SweepProgress") -> None:
        on_sweep(progress)
        if collective is not None:
            collective.raise_if_stopped()

    def weigh(chain: Chain, each: "Each") -> None:
        chain.weighted = True

    def add_sessions(chain: Chain, each: "Each") -> None:
        assert timed is not None
        chain.add_sessions(*timed)

    terms = [ModelTerm(weigh, _USER_NOISE_GAIN, costs=False)] if config.user_noise == "auto" else []
    if config.implicit == "auto":
        terms.append(ModelTerm(Chain.add_implicit, _IMPLICIT_GAIN))
    if config.time == "auto" and timed:
        terms.append(ModelTerm(add_sessions, _TIME_GAIN))
    return try_terms(chain, terms, held_out, on_trial, every)


def _checkpointer(
    chain: "Chain",
    config: Config,
    seed: int,
    parts: list[Interactions],
    collective: "ContextCollective | None",
    most: int,
) -> "Checkpointer | None":
    """Where the chain's state is saved, if anywhere."""
    if collective is not None:
        from recsys.models.bayesian_mf.distributed import ContextCheckpointer

        return ContextCheckpointer(collective, most)
    if config.chain == "none":
        return None
    from recsys.models.bayesian_mf.checkpoint import FileCheckpointer

    return FileCheckpointer(chain, config, seed, parts)


def _continue_from(chain: "Chain", first: BayesianRecommender, knowledge: Knowledge) -> None:
    """Give a chain the factors where the first fit ended: most of the ratings are the same."""
    from recsys.models.bayesian_mf.warm_start import continue_from

    users, items = knowledge.user_codes(first.knowledge.user_ids), knowledge.item_codes(first.knowledge.item_ids)
    user_factors = first.draws.users[:, -1, :-1]
    item_factors = np.delete(first.draws.items[:, -1], -2, axis=1)
    known = users >= 0, items >= 0
    continue_from(chain, (users[known[0]], user_factors[known[0]]), (items[known[1]], item_factors[known[1]]))


def suggest(trial: Any) -> Config:
    """The search space; the strengths of priors are no part of it, since they are sampled."""
    return Config(
        embedding_size=trial.suggest_int("embedding_size", 4, 64, log=True),
        samples=trial.suggest_int("samples", 10, 60),
        implicit=trial.suggest_categorical("implicit", ["auto", "true", "false"]),
        time=trial.suggest_categorical("time", ["auto", "false"]),
    )


def _held_out(knowledge: Knowledge, validation: Interactions, is_told: bool) -> "HeldOut":
    from recsys.models.bayesian_mf.mcmc import HeldOut

    return HeldOut(
        validation,
        (validation.users >= 0) & (validation.items >= 0),
        knowledge.biases.rating(validation.users, validation.items),
        validation.ratings >= knowledge.like_threshold,
        knowledge.scale,
        is_told,
    )


def _measured(progress: "SweepProgress") -> dict[str, float]:
    names = ("seconds", "train_rmse", "sample_rmse", "validation_rmse", "validation_auc", "draws_kept")
    values = {name: getattr(progress, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and np.isfinite(value)}
