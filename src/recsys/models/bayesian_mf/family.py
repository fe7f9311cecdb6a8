"""Bayesian matrix factorization, sampled rather than optimised (Salakhutdinov and Mnih 2008).

A rating is a user and an item bias and the inner product of their factors. Draws from the posterior of all of them are
kept (gibbs.py, in PyTorch), and predictions are averaged over the draws. The spread of the draws and their noise give
the posterior predictive distribution; from it come the probability of a like and the standard deviation.

A session is cut in sessions.py. The like threshold is learnt in threshold.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.arrays import Codes, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.factors import RatingFactors
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.posterior import SAVED_NAMES, PosteriorDraws, normal_cdf, pack_draws, pack_factors
from recsys.models.bayesian_mf.sessions import NO_SESSIONS, Sessions, cut_sessions
from recsys.models.bayesian_mf.threshold import adjacent_levels, learn_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.models.bayesian_mf.distributed import ContextCollective
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import Checkpointer, HeldOut, SweepProgress

# Spared are the start, the burn-in, and some draws to average.
CAPABILITIES = Capabilities(shardings=("none",), folds_in=True, spared_reports=30)
# Least gain on the validation rows, in standard errors, for which a term stays. Session biases that tell nothing are
# shrunk to 0 by their own precision; the implicit term costs accuracy where it tells nothing.
_IMPLICIT_GAIN, _TIME_GAIN = 2.0, 1.0
_WARM_START_BURN_IN = 6  # sweeps of a chain that begins where another ended


class BayesianRecommender(Recommender):
    """Draws from the posterior, for ratings less `centre` over `unit`; a rating above `threshold` counts as a like."""

    family = "bayesian_mf"
    config: Config

    def __init__(
        self, knowledge: Knowledge, config: Config, draws: PosteriorDraws, centre: float, unit: float, threshold: float
    ) -> None:
        super().__init__(knowledge, config)
        self.draws = draws
        self.centre = centre
        self.unit = unit
        self.threshold = threshold

    @property
    def implicit(self) -> bool:
        """Whether it learnt from who rated what."""
        return bool(self.draws.projection.shape[1])

    @property
    def uses_time(self) -> bool:
        """Whether predictions for given moments differ from those without."""
        return self.time

    @property
    def time(self) -> bool:
        """Whether it learnt from time."""
        return len(self.draws.sessions) > 0

    def choices(self) -> dict[str, object]:
        """Which terms the validation rows were for, and how many draws were kept."""
        return {"implicit": self.implicit, "time": self.time, "samples": len(self.draws)}

    def predictive_std(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Floats:
        """Standard deviation of the rating that each pair of raw ids would give, shape (n,).

        Of an unknown user or item nothing is known but the biases: theirs is that of all ratings.
        """
        users, items = self.knowledge.user_codes(user_ids), self.knowledge.item_codes(item_ids)
        known = (users >= 0) & (items >= 0)
        spread = np.full(len(users), self.unit)
        times = None if timestamps is None else timestamps[known]
        spread[known] = self.unit * np.sqrt(self.draws.predict(users[known], items[known], times)[1])
        return spread

    def rating_factors(self) -> RatingFactors:
        """All draws side by side: their mean is one inner product. The spread between them is told by user and item."""
        draws = self.draws
        user_part, item_part = draws.spread_parts()
        rest = draws.variance + draws.noise + draws.session_variance[-1]
        return RatingFactors(
            users=draws.users.reshape(len(draws.users), -1),
            items=draws.items.reshape(len(draws.items), -1),
            constant=self.centre,
            scale=self.unit / len(draws),
            user_variance=self.unit**2 * (rest + user_part),
            item_variance=self.unit**2 * item_part,
            slope=1.0,
            threshold=self.threshold,
            link="probit",
        )

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        return self._predictions(*self.draws.predict(users, items))

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        return self._predictions(*self.draws.predict(users, items, timestamps))

    def _predictions(self, mean: Floats, variance: Floats) -> Predictions:
        rating = self.centre + self.unit * mean
        return Predictions(rating, normal_cdf((rating - self.threshold) / (self.unit * np.sqrt(variance))))

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "BayesianRecommender":
        """Draw the factors of the users of `rows`, given the items' kept draws."""
        ratings = (rows.ratings - self.centre) / self.unit
        draws = self.draws.fold_in(rows, len(knowledge.user_ids), ratings)
        return BayesianRecommender(knowledge, self.config, draws, self.centre, self.unit, self.threshold)

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        draws = self.draws
        save_arrays(
            folder / "samples.npz",
            user_factors=draws.users[:, :, :-1].astype(np.float16),
            item_factors=np.delete(draws.items, -2, axis=2).astype(np.float16),
            **{SAVED_NAMES.get(name, name): getattr(draws, name) for name in _SMALL},
            **{f"run_{name}": getattr(draws.sessions, name) for name in _SESSIONS},
        )
        return {"centre": self.centre, "unit": self.unit, "border": self.threshold}


_SMALL = (
    "noise",
    "variance",
    "second",
    "precision",
    "mean",
    "inverse",
    "link",
    "projection",
    "session_bias",
    "session_variance",
)
_SESSIONS = ("users", "starts", "ends")


def fit(knowledge: Knowledge, rows: Interactions, config: Config, options: FitOptions) -> BayesianRecommender:
    """Sample until further draws no longer help on the validation rows, or as many draws as the first fit kept.

    The second fit keeps the first fit's terms and threshold. Processes that train together share one chain.

    Raises:
        InputError: if a GPU is asked for and there is none; StoppedError if a process was told to stop.
    """
    from recsys.models.bayesian_mf.mcmc import BURN_IN, run_chain  # PyTorch takes seconds to import

    validation = options.validation
    first = options.warm_start if isinstance(options.warm_start, BayesianRecommender) else None
    sessions, of_rating = _cut_sessions(rows, validation)
    _check(config, options, of_rating is not None)
    held_out = None if validation is None else _held_out(knowledge, validation)
    collective = _collective(options)

    def on_sweep(progress: "SweepProgress") -> None:
        if options.report is not None and validation is not None:
            options.report(progress.sweep, _measured(progress))

    timed = None if of_rating is None else (sessions.users, of_rating)
    chain = _start_chain(knowledge, rows, config, options.seed, first, timed, collective)
    if first:
        _continue_from(chain, first, knowledge)
    elif held_out is not None:
        chain = _try_terms(chain, config, timed, held_out, on_sweep, collective)
    most = len(first.draws) if first else config.samples
    parts = [rows] if validation is None else [rows, validation]
    kept = run_chain(
        chain,
        most,
        stop_early=first is None,
        held_out=held_out,
        on_sweep=on_sweep,
        checkpointer=_checkpointer(chain, config, options.seed, parts, collective, most),
        burn_in=_WARM_START_BURN_IN if first else BURN_IN,
    )
    projection = None if chain.projection is None else chain.projection.cpu().numpy()
    if chain.sessions:
        draws = pack_draws(kept, projection, sessions, chain.sessions.counts.cpu().numpy())
    else:
        draws = pack_draws(kept, projection, NO_SESSIONS, np.zeros(0))
    low, high = adjacent_levels(rows.ratings, knowledge.like_threshold)
    threshold = first.threshold if first else (low + high) / 2
    if held_out is not None:
        known = held_out.known
        mean, variance = draws.predict(held_out.rows.users[known], held_out.rows.items[known])
        rating, spread = chain.centre + chain.scale * mean, chain.scale * np.sqrt(variance)
        threshold = learn_threshold(rating, spread, held_out.liked[known], low, high)
    return BayesianRecommender(knowledge, config, draws, chain.centre, chain.scale, threshold)


def _cut_sessions(rows: Interactions, validation: Interactions | None) -> tuple[Sessions, Codes | None]:
    """The sessions, and the session of each rating; none where the ratings, or the validation rows, have no times."""
    if rows.timestamps is None or (validation is not None and validation.timestamps is None):
        return NO_SESSIONS, None
    return cut_sessions(rows.users, rows.timestamps)


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

    chain = Chain(rows, (len(knowledge.user_ids), len(knowledge.item_ids)), config, seed, collective)
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
) -> "Chain":
    """The chain with those terms that the settings leave open and that help on the validation rows."""
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import ModelTerm, try_terms

    def on_trial(progress: "SweepProgress") -> None:
        on_sweep(progress)
        if collective is not None:
            collective.raise_if_stopped()

    terms = [ModelTerm(Chain.add_implicit, _IMPLICIT_GAIN)] if config.implicit == "auto" else []
    if config.time == "auto" and timed:
        terms.append(ModelTerm(lambda chain: chain.add_sessions(*timed), _TIME_GAIN))
    return try_terms(chain, terms, held_out, on_trial)


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


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> BayesianRecommender:
    """Read the draws back."""
    arrays = load_arrays(folder / "samples.npz")
    tables = (arrays[f"{entity}_factors"].swapaxes(0, 1) for entity in ("user", "item"))
    sessions = Sessions(*(arrays[f"run_{name}"] for name in _SESSIONS))
    n_users, d = len(arrays["noise"]), arrays["mean"].shape[1]
    # Versions of the first release kept draws of the users' factors, not means, and so no variance within a draw.
    arrays = {"variance": np.zeros(n_users), "second": np.zeros((d, d))} | arrays
    small = {name: arrays[SAVED_NAMES.get(name, name)] for name in _SMALL}
    draws = PosteriorDraws(*pack_factors(list(zip(*tables, strict=True))), sessions=sessions, **small)
    weights = description["weights"]
    return BayesianRecommender(
        knowledge,
        Config(**description["config"]),
        draws,
        float(weights["centre"]),
        float(weights["unit"]),
        float(weights["border"]),
    )


def _held_out(knowledge: Knowledge, validation: Interactions) -> "HeldOut":
    """The validation rows, predicted as a server is asked: their timestamps are not looked at."""
    from recsys.models.bayesian_mf.mcmc import HeldOut

    return HeldOut(
        validation,
        (validation.users >= 0) & (validation.items >= 0),
        knowledge.biases.rating(validation.users, validation.items),
        validation.ratings >= knowledge.like_threshold,
        knowledge.scale,
        sessions=None,
    )


def _measured(progress: "SweepProgress") -> dict[str, float]:
    names = ("seconds", "train_rmse", "sample_rmse", "validation_rmse", "validation_auc", "draws_kept")
    values = {name: getattr(progress, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and np.isfinite(value)}
