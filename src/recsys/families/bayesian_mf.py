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
from recsys.dataset import Interactions
from recsys.errors import InputError
from recsys.recommender import Knowledge, Predictions, Recommender, load_arrays, save_arrays
from recsys.resuming import Keeper
from recsys.runs import Runs, cut_runs
from recsys.samples import Sample, Samples, normal_cdf, pack
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.gibbs import Chain
    from recsys.sampling import HeldOut, Progress
    from recsys.training import Report

# By how many standard errors a term has to help on the validation rows. Sittings that tell nothing are shrunk to none
# by their own precision; who rated what costs accuracy where it tells nothing.
_IMPLICIT_CLEAR, _TIME_CLEAR = 2.0, 1.0
_GUIDED_BURN_IN = 6  # sweeps of a chain that begins where another ended
_BORDER_SPREAD = 0.25  # of the gap between two levels: how far from its middle the border may be expected


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

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        return self._predictions(*self.samples.predict(users, items))

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        return self._predictions(*self.samples.predict(users, items, timestamps))

    def _predictions(self, mean: Floats, variance: Floats) -> Predictions:
        rating = self.centre + self.unit * mean
        return Predictions(rating, normal_cdf((rating - self.border) / (self.unit * np.sqrt(variance))))

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
    *,
    seed: int,
    validation: Interactions | None = None,
    guide: Recommender | None = None,
    report: "Report | None" = None,
) -> BayesianRecommender:
    """Sample until the validation rows gain nothing, or as many draws as `guide` kept, with its choices.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    from recsys.gibbs import Chain  # PyTorch takes seconds to import
    from recsys.growing import add_implicit, add_runs
    from recsys.sampling import BURN_IN, Term, run_chain, try_terms
    from recsys.workers import find_device, has_gpu

    if config.device == "cuda" and not has_gpu():
        raise InputError("parameter 'device': cuda needs a GPU that PyTorch can use, found none; pass device=auto")

    guided = guide if isinstance(guide, BayesianRecommender) else None
    known_time = rows.timestamps is not None and (validation is None or validation.timestamps is not None)
    if config.time == "true" and not known_time:
        raise InputError(
            "parameter 'time': true needs ratings with timestamps, these have none; name their column by "
            "-P timestamp_column=…, or pass time=auto"
        )
    runs, run_of = (
        cut_runs(rows.users, rows.timestamps) if known_time and rows.timestamps is not None else (_NO_RUNS, None)
    )
    held_out = _held_out(knowledge, validation, runs) if validation is not None else None

    def on_sweep(progress: "Progress") -> None:
        if report is not None and validation is not None:
            report(progress.sweep, _measured(progress))

    implicit = guided.implicit if guided else config.implicit == "true"
    time = guided.time if guided else config.time == "true"
    moods = (runs.users, run_of) if run_of is not None else None
    chain = Chain(
        rows.users,
        rows.items,
        rows.ratings,
        len(knowledge.user_ids),
        len(knowledge.item_ids),
        embedding_size=config.embedding_size,
        implicit=implicit,
        runs=moods if time else None,
        seed=seed,
        device=find_device(config.device),
    )
    if guided:
        _go_on_from(chain, guided, knowledge)
    elif held_out is not None:
        terms = [Term("implicit", add_implicit, _IMPLICIT_CLEAR)] if config.implicit == "auto" else []
        if config.time == "auto" and moods:
            terms.append(Term("time", lambda chain: add_runs(chain, *moods), _TIME_CLEAR))
        chain, helpful = try_terms(chain, terms, held_out, on_sweep)
        implicit, time = implicit or "implicit" in helpful, time or "time" in helpful
    most = len(guided.samples) if guided else config.samples
    keeper = None
    if config.chain != "none":
        made_by = {
            "embedding_size": config.embedding_size,
            "implicit": implicit,
            "time": time,
            "seed": seed,
            "device": chain.device.type,
        }
        keeper = Keeper(Path(config.chain), made_by, rows, *([] if validation is None else [validation]))
    kept = run_chain(
        chain,
        most,
        stop_early=guided is None,
        held_out=held_out,
        on_sweep=on_sweep,
        keeper=keeper,
        burn_in=_GUIDED_BURN_IN if guided else BURN_IN,
    )
    low, high = _around_threshold(rows.ratings, knowledge.like_threshold)
    border = guided.border if guided else (low + high) / 2
    samples = _packed(kept, chain, runs if time else _NO_RUNS)
    fitted = BayesianRecommender(knowledge, config, samples, chain.centre, chain.scale, border)
    if held_out is not None:
        fitted.border = _learn_border(fitted, held_out, low, high)
    return fitted


def _go_on_from(chain: "Chain", guide: BayesianRecommender, knowledge: Knowledge) -> None:
    """Put a chain where the guide's ended: most of its ratings are the same, so that it has little to find."""
    from recsys.gibbs import START_SWEEPS
    from recsys.growing import go_on_from

    users, items = knowledge.user_codes(guide.knowledge.user_ids), knowledge.item_codes(guide.knowledge.item_ids)
    user_factors = guide.samples.users[:, -1, :-1]
    item_factors = np.delete(guide.samples.items[:, -1], -2, axis=1)
    known = users >= 0, items >= 0
    go_on_from(
        chain,
        START_SWEEPS,
        (users[known[0]], user_factors[known[0]]),
        (items[known[1]], item_factors[known[1]]),
    )


def fold_in(recommender: BayesianRecommender, knowledge: Knowledge, rows: Interactions) -> BayesianRecommender:
    """Draw the factors of the users of `rows`, in the codes of `knowledge`, given the items' kept draws."""
    ratings = (rows.ratings - recommender.centre) / recommender.unit
    samples = recommender.samples.fold_in(rows, len(knowledge.user_ids), ratings)
    return BayesianRecommender(
        knowledge, recommender.config, samples, recommender.centre, recommender.unit, recommender.border
    )


def suggest(trial: Any) -> Config:
    """The search space."""
    return Config(
        embedding_size=trial.suggest_int("embedding_size", 4, 128, log=True),
        implicit=trial.suggest_categorical("implicit", ["auto", "true", "false"]),
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
    from recsys.sampling import HeldOut

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


def _packed(kept: "list[Sample]", chain: "Chain", runs: Runs) -> Samples:
    users, items = pack([(draw.user_factors, draw.item_factors) for draw in kept])
    noise = np.mean([1 / (draw.noise * draw.user_precision) for draw in kept], 0)
    small = {name: np.array([getattr(draw, name) for draw in kept], np.float32) for name in ("mean", "inverse", "link")}
    n_items = len(items)
    projection = np.zeros((n_items, 0), np.float32) if chain.projection is None else chain.projection.cpu().numpy()
    biases = sum(draw.run_bias.astype(np.float64) for draw in kept) / len(kept)
    variance = sum((draw.run_bias - biases) ** 2 for draw in kept) / len(kept)
    if chain.runs:
        counts = chain.runs.counts.cpu().numpy()
        precisions = (draw.noise * draw.user_precision[runs.users] * counts + draw.run_precision for draw in kept)
        variance += sum(1 / precision for precision in precisions) / len(kept)
    new_variance = np.mean([1 / draw.run_precision for draw in kept])
    return Samples(
        users,
        items,
        noise,
        np.mean([draw.user_variance for draw in kept], 0),
        np.mean([draw.second for draw in kept], 0),
        np.array([draw.noise for draw in kept]),
        projection=projection,
        runs=runs,
        run_bias=np.append(biases, 0.0),
        run_variance=np.append(variance, new_variance),
        **small,
    )


def _around_threshold(ratings: Floats, threshold: float) -> tuple[float, float]:
    """The highest rating below the threshold and the lowest that is not; the threshold where there is none."""
    below, above = ratings[ratings < threshold], ratings[ratings >= threshold]
    return (float(below.max()) if len(below) else threshold), (float(above.min()) if len(above) else threshold)


def _learn_border(fitted: BayesianRecommender, held_out: "HeldOut", low: float, high: float) -> float:
    """The rating between two levels from which on likes are likely, by maximum posterior on the held-out rows.

    A rating is a level, its prediction is not. As in an ordered probit model (McCullagh 1980), whatever falls above
    a border counts as the higher level; half-way is only the first guess of where it is.
    """
    rows, known = held_out.rows, held_out.known
    liked = held_out.liked[known]
    if low >= high or not known.any():
        return (low + high) / 2
    times = None if rows.timestamps is None else rows.timestamps[known]
    mean, variance = fitted.samples.predict(rows.users[known], rows.items[known], times)
    rating, spread = fitted.centre + fitted.unit * mean, fitted.unit * np.sqrt(variance)
    candidates = np.linspace(low, high, 101)[1:-1]
    middle, scale = (low + high) / 2, _BORDER_SPREAD * (high - low)

    def log_posterior(border: float) -> float:
        share = np.clip(normal_cdf((rating - border) / spread), 1e-6, 1 - 1e-6)
        likelihood = np.log(np.where(liked, share, 1 - share)).sum()
        return float(likelihood - ((border - middle) / scale) ** 2 / 2)

    return float(candidates[np.argmax([log_posterior(border) for border in candidates])])
