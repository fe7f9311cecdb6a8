"""Bayesian matrix factorization, sampled rather than optimised (Salakhutdinov and Mnih 2008).

A rating is a user and an item bias and the inner product of their factors. Of all of them the posterior is sampled
(recsys.gibbs, in PyTorch), and predictions are averaged over the draws kept. The spread of the draws and their noise
give the posterior predictive distribution, from which the probability of a like and the standard deviation come.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from recsys.arrays import Codes, Floats, Ids
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.factors import RatingFactors
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf.checkpoint import Keeper
from recsys.models.bayesian_mf.posterior import Samples, normal_cdf, pack, pack_samples
from recsys.models.bayesian_mf.sessions import Runs, cut_runs
from recsys.models.bayesian_mf.threshold import around_threshold, learn_border
from recsys.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.distributed.context import Context
    from recsys.models.bayesian_mf.distributed import Exchanges
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import HeldOut, Keeping, Progress

# Spared are the start, the burn-in, and some draws to average.
CAPABILITIES = Capabilities(shardings=("none",), folds_in=True, spared_reports=30)
# By how many standard errors a term has to help on the validation rows. Sittings that tell nothing are shrunk to none
# by their own precision; who rated what costs accuracy where it tells nothing.
_IMPLICIT_CLEAR, _TIME_CLEAR = 2.0, 1.0
_GUIDED_BURN_IN = 6  # sweeps of a chain that begins where another ended


def _check_folder(path: str) -> str:
    if path != "none" and not Path(path).is_absolute():
        raise ValueError("expected the absolute path of a folder, or none")
    return path


class Config(Settings):
    """Settings of Bayesian matrix factorization."""

    embedding_size: int = Field(30, ge=1, le=1024, description="factors per user and item")
    samples: int = Field(
        30, ge=1, le=10_000, description="most posterior draws to keep; fewer once validation gains nothing"
    )
    implicit: Literal["auto", "true", "false"] = Field(
        "auto",
        description="learn from which items a user rated, whatever the rating; auto: if validation says it helps",
    )
    time: Literal["auto", "true", "false"] = Field(
        "auto", description="learn how a user's ratings go up and down with time; auto: where that helps"
    )
    chain: Annotated[str, AfterValidator(_check_folder)] = Field(
        "none", description="folder, by its absolute path, where a stopped training is kept and goes on; none: nowhere"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")


class BayesianRecommender(Recommender):
    """Draws from the posterior, for ratings less `centre` over `unit`; a rating above `border` counts as a like."""

    family = "bayesian_mf"
    config: Config

    def __init__(
        self, knowledge: Knowledge, config: Config, samples: Samples, centre: float, unit: float, border: float
    ) -> None:
        super().__init__(knowledge, config)
        self.samples = samples
        self.centre = centre
        self.unit = unit
        self.border = border

    @property
    def implicit(self) -> bool:
        """Whether it learnt from who rated what."""
        return bool(self.samples.projection.shape[1])

    @property
    def time(self) -> bool:
        """Whether it learnt from time."""
        return len(self.samples.runs) > 0

    def choices(self) -> dict[str, object]:
        """Which terms validation was for, and how many draws it took."""
        return {"implicit": self.implicit, "time": self.time, "samples": len(self.samples)}

    def predictive_std(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Floats:
        """Standard deviation of the rating that each pair of raw ids would give, shape (n,).

        Of an unknown user or item nothing is known but the biases: theirs is that of all ratings.
        """
        users, items = self.knowledge.user_codes(user_ids), self.knowledge.item_codes(item_ids)
        known = (users >= 0) & (items >= 0)
        spread = np.full(len(users), self.unit)
        times = None if timestamps is None else timestamps[known]
        spread[known] = self.unit * np.sqrt(self.samples.predict(users[known], items[known], times)[1])
        return spread

    def rating_factors(self) -> RatingFactors:
        """All draws side by side: their mean is one inner product. The spread between them is told by user and item."""
        samples = self.samples
        user_part, item_part = samples.spread_parts()
        rest = samples.variance + samples.noise + samples.run_variance[-1]
        return RatingFactors(
            users=samples.users.reshape(len(samples.users), -1),
            items=samples.items.reshape(len(samples.items), -1),
            constant=self.centre,
            scale=self.unit / len(samples),
            user_variance=self.unit**2 * (rest + user_part),
            item_variance=self.unit**2 * item_part,
            slope=1.0,
            threshold=self.border,
            link="probit",
        )

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        return self._predictions(*self.samples.predict(users, items))

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        return self._predictions(*self.samples.predict(users, items, timestamps))

    def _predictions(self, mean: Floats, variance: Floats) -> Predictions:
        rating = self.centre + self.unit * mean
        return Predictions(rating, normal_cdf((rating - self.border) / (self.unit * np.sqrt(variance))))

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "BayesianRecommender":
        """Draw the factors of the users of `rows`, given the items' kept draws."""
        ratings = (rows.ratings - self.centre) / self.unit
        samples = self.samples.fold_in(rows, len(knowledge.user_ids), ratings)
        return BayesianRecommender(knowledge, self.config, samples, self.centre, self.unit, self.border)

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        samples = self.samples
        save_arrays(
            folder / "samples.npz",
            user_factors=samples.users[:, :, :-1].astype(np.float16),
            item_factors=np.delete(samples.items, -2, axis=2).astype(np.float16),
            **{name: getattr(samples, name) for name in _SMALL},
            **{f"run_{name}": getattr(samples.runs, name) for name in _RUNS},
        )
        return {"centre": self.centre, "unit": self.unit, "border": self.border}


_SMALL = (
    "noise",
    "variance",
    "second",
    "precision",
    "mean",
    "inverse",
    "link",
    "projection",
    "run_bias",
    "run_variance",
)
_RUNS = ("users", "starts", "ends")
_NO_RUNS = Runs(np.zeros(0, np.int32), np.zeros(0), np.zeros(0))


def fit(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    options: FitOptions,
) -> BayesianRecommender:
    """Sample until the validation rows gain nothing, or as many draws as the first fit kept, with its choices.

    Processes that train together share one chain.

    Raises:
        InputError: if a GPU is asked for and there is none; StoppedError where the context was told to stop.
    """
    from recsys.models.bayesian_mf.mcmc import BURN_IN, run_chain  # PyTorch takes seconds to import

    validation, context = options.validation, options.context
    first = options.warm_start if isinstance(options.warm_start, BayesianRecommender) else None
    known_time = rows.timestamps is not None and (validation is None or validation.timestamps is not None)
    _check(config, known_time, context)
    runs, run_of = (
        cut_runs(rows.users, rows.timestamps) if known_time and rows.timestamps is not None else (_NO_RUNS, None)
    )
    held_out = _held_out(knowledge, validation, runs) if validation is not None else None
    exchanges = _exchanges(context)

    def on_sweep(progress: "Progress") -> None:
        if options.report is not None and validation is not None:
            options.report(progress.sweep, _measured(progress))

    moods = (runs.users, run_of) if run_of is not None else None
    chain = _new_chain(knowledge, rows, config, first, moods, options.seed, exchanges)
    if first:
        _go_on_from(chain, first, knowledge)
    elif held_out is not None:
        chain = _try_terms(chain, config, moods, held_out, on_sweep, exchanges)
    most = len(first.samples) if first else config.samples
    kept = run_chain(
        chain,
        most,
        stop_early=first is None,
        held_out=held_out,
        on_sweep=on_sweep,
        keeper=_keeper(
            config, chain, options.seed, [rows] if validation is None else [rows, validation], exchanges, most
        ),
        burn_in=_GUIDED_BURN_IN if first else BURN_IN,
    )
    low, high = around_threshold(rows.ratings, knowledge.like_threshold)
    border = first.border if first else (low + high) / 2
    projection = None if chain.projection is None else chain.projection.cpu().numpy()
    timed = (runs, chain.runs.counts.cpu().numpy()) if chain.runs else (_NO_RUNS, np.zeros(0))
    samples = pack_samples(kept, projection, *timed)
    fitted = BayesianRecommender(knowledge, config, samples, chain.centre, chain.scale, border)
    if held_out is not None:
        known = held_out.known
        times = None if held_out.rows.timestamps is None else held_out.rows.timestamps[known]
        mean, variance = samples.predict(held_out.rows.users[known], held_out.rows.items[known], times)
        rating, spread = chain.centre + chain.scale * mean, chain.scale * np.sqrt(variance)
        fitted.border = learn_border(rating, spread, held_out.liked[known], low, high)
    return fitted


def _check(config: Config, known_time: bool, context: "Context | None") -> None:
    from recsys.runtime.device import has_gpu

    if context is not None and config.chain != "none":
        raise InputError(
            f"parameter 'chain': none where a training keeps checkpoints of its own (as with processes, nodes and "
            f"resume), got {config.chain!r}"
        )
    if config.device == "cuda" and not has_gpu():
        raise InputError("parameter 'device': cuda needs a GPU that PyTorch can use, found none; pass device=auto")
    if config.time == "true" and not known_time:
        raise InputError(
            "parameter 'time': true needs ratings with timestamps, these have none; name their column by "
            "-P timestamp_column=…, or pass time=auto"
        )


def _exchanges(context: "Context | None") -> "Exchanges | None":
    if context is None:
        return None
    from recsys.models.bayesian_mf.distributed import Exchanges

    return Exchanges(context)


def _new_chain(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    first: BayesianRecommender | None,
    moods: tuple[Codes, Codes] | None,
    seed: int,
    exchanges: "Exchanges | None",
) -> "Chain":
    """A chain at its start, with the terms that are settled."""
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.runtime.device import find_device

    time = first.time if first else config.time == "true"
    return Chain(
        rows.users,
        rows.items,
        rows.ratings,
        len(knowledge.user_ids),
        len(knowledge.item_ids),
        embedding_size=config.embedding_size,
        implicit=first.implicit if first else config.implicit == "true",
        runs=moods if time else None,
        seed=seed,
        device=str(exchanges.device) if exchanges else find_device(config.device),
        group=exchanges,
    )


def _try_terms(
    chain: "Chain",
    config: Config,
    moods: tuple[Codes, Codes] | None,
    held_out: "HeldOut",
    on_sweep: "Callable[[Progress], None]",
    exchanges: "Exchanges | None",
) -> "Chain":
    """The chain with those of the open terms that help on the validation rows."""
    from recsys.models.bayesian_mf.gibbs import Chain
    from recsys.models.bayesian_mf.mcmc import Term, try_terms

    def on_trial(progress: "Progress") -> None:
        on_sweep(progress)
        if exchanges is not None:
            exchanges.check()

    terms = [Term(Chain.add_implicit, _IMPLICIT_CLEAR)] if config.implicit == "auto" else []
    if config.time == "auto" and moods:
        terms.append(Term(lambda chain: chain.add_runs(*moods), _TIME_CLEAR))
    return try_terms(chain, terms, held_out, on_trial)


def _keeper(
    config: Config,
    chain: "Chain",
    seed: int,
    parts: list[Interactions],
    exchanges: "Exchanges | None",
    samples: int,
) -> "Keeping | None":
    """Where the chain's state is kept, if anywhere."""
    if exchanges is not None:
        from recsys.models.bayesian_mf.distributed import ContextKeeper

        return ContextKeeper(exchanges, samples)
    if config.chain == "none":
        return None
    made_by = {
        "embedding_size": config.embedding_size,
        "implicit": chain.projection is not None,
        "time": chain.runs is not None,
        "seed": seed,
        "device": chain.device.type,
    }
    return Keeper(Path(config.chain), made_by, *parts)


def _go_on_from(chain: "Chain", first: BayesianRecommender, knowledge: Knowledge) -> None:
    """Put a chain where the first fit's ended: most of its ratings are the same, so that it has little to find."""
    from recsys.models.bayesian_mf.gibbs import START_SWEEPS
    from recsys.models.bayesian_mf.warm_start import go_on_from

    users, items = knowledge.user_codes(first.knowledge.user_ids), knowledge.item_codes(first.knowledge.item_ids)
    user_factors = first.samples.users[:, -1, :-1]
    item_factors = np.delete(first.samples.items[:, -1], -2, axis=1)
    known = users >= 0, items >= 0
    go_on_from(
        chain,
        START_SWEEPS,
        (users[known[0]], user_factors[known[0]]),
        (items[known[1]], item_factors[known[1]]),
    )


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
    tables = (arrays[f"{side}_factors"].swapaxes(0, 1) for side in ("user", "item"))
    runs = Runs(*(arrays[f"run_{name}"] for name in _RUNS))
    n_users, d = len(arrays["noise"]), arrays["mean"].shape[1]
    whole_draws = {"variance": np.zeros(n_users), "second": np.zeros((d, d))}  # kept before means were
    small = {name: (whole_draws | arrays)[name] for name in _SMALL}
    samples = Samples(*pack(list(zip(*tables, strict=True))), runs=runs, **small)
    weights = description["weights"]
    return BayesianRecommender(
        knowledge,
        Config(**description["config"]),
        samples,
        float(weights["centre"]),
        float(weights["unit"]),
        float(weights["border"]),
    )


def _held_out(knowledge: Knowledge, validation: Interactions, runs: Runs) -> "HeldOut":
    from recsys.models.bayesian_mf.mcmc import HeldOut

    return HeldOut(
        validation,
        (validation.users >= 0) & (validation.items >= 0),
        knowledge.biases.rating(validation.users, validation.items),
        validation.ratings >= knowledge.like_threshold,
        knowledge.scale,
        None if validation.timestamps is None else runs.find(validation.users, validation.timestamps),
    )


def _measured(progress: "Progress") -> dict[str, float]:
    names = ("seconds", "train_rmse", "sample_rmse", "validation_rmse", "validation_auc", "draws_kept")
    values = {name: getattr(progress, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and np.isfinite(value)}
