"""Matrix factorization by stochastic gradient descent (Koren, Bell and Volinsky 2009).

Ratings are predicted by the formula of rating.py. Training uses Numba on the CPU, and PyTorch on a GPU and in several
processes; it leaves NumPy arrays, so that serving needs neither.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.arrays import Array, Codes, Floats
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.calibration import LikeCalibration, calibrate
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.factors import RatingFactors, ScoringDraws
from recsys.models.base.family import FitOptions, Report
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.ridge import ridge_systems
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.rating import rating, user_part

if TYPE_CHECKING:
    from recsys.data.loader import RowStream
    from recsys.distributed.context import Context
    from recsys.models.matrix_factorization.factors import Factors
    from recsys.models.matrix_factorization.schedule import Epoch
    from recsys.models.matrix_factorization.training import Problem

    FitFactors = Callable[[Problem, Callable[[Epoch], None] | None], tuple[Factors, list[Epoch], int]]

_BLOCK = 1 << 15  # pairs multiplied at a time: the gathered factors then stay in the processor's cache
CAPABILITIES = Capabilities(
    shardings=("none", "row"),
    streams=True,
    folds_in=True,
    # For a dozen epochs only the biases are learnt, then one factor after the other grows: who is ahead changes.
    spared_reports=20,
    rounds="epochs",
)
_LEAST_SLOPE = 1e-9  # of a calibration, where a number is divided by it
_LEAST_PENALTY = 1e-6  # per rating, where folding in would else solve a system without a solution


class FactorRecommender(Recommender):
    """Biases and factors.

    `user_factors` and `item_factors` are float32 of shape (n, embedding_size); `epochs` is how many were kept.
    """

    family = "matrix_factorization"
    config: Config

    def __init__(
        self,
        knowledge: Knowledge,
        config: Config,
        arrays: dict[str, Array],
        mean: float,
        epochs: int,
        likes: LikeCalibration,
    ) -> None:
        super().__init__(knowledge, config)
        self.arrays = arrays
        self.mean = mean
        self.epochs = epochs
        self.likes = likes

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        predicted = self._rating(users, items)
        return Predictions(predicted, self.likes.probability(predicted))

    def _rating(self, users: Codes, items: Codes) -> Floats:
        arrays = self.arrays
        product = np.empty(len(users), np.float32)
        for start in range(0, len(users), _BLOCK):
            block = slice(start, start + _BLOCK)
            user_factors = arrays["user_factors"].take(users[block], axis=0)
            item_factors = arrays["item_factors"].take(items[block], axis=0)
            np.einsum("nk,nk->n", user_factors, item_factors, out=product[block])
        return rating(self.mean, arrays["user_bias"][users], arrays["item_bias"][items], product.astype(np.float64))

    def rating_factors(self) -> RatingFactors:
        """The factors, with the biases as two further columns."""
        arrays, likes = self.arrays, self.likes
        users, items = arrays["user_factors"], arrays["item_factors"]
        ones = np.ones(len(users), np.float32), np.ones(len(items), np.float32)
        return RatingFactors(
            users=np.column_stack((users, arrays["user_bias"].astype(np.float32), ones[0])),
            items=np.column_stack((items, ones[1], arrays["item_bias"].astype(np.float32))),
            constant=self.mean,
            scale=1.0,
            user_variance=np.ones(len(users)),
            item_variance=np.zeros(len(items)),
            # A slope of 0 knows one probability for every rating: a threshold cannot say which.
            slope=likes.slope or _LEAST_SLOPE,
            threshold=-likes.intercept / (likes.slope or _LEAST_SLOPE),
            link="logit",
        )

    def scoring_draws(self) -> ScoringDraws:
        """The factors as one draw."""
        return ScoringDraws.of_one(self.rating_factors())

    def _fold_in(self, knowledge: Knowledge, rows: Interactions) -> "FactorRecommender":
        """Solve for the factors of the users of `rows`, with the penalty of the training."""
        arrays, config = self.arrays, self.config
        table = np.column_stack((arrays["item_factors"], np.ones(len(arrays["item_bias"]))))
        n_users, d = len(knowledge.user_ids), table.shape[1]
        users = np.zeros((n_users, d), np.float32)
        users[: len(arrays["user_bias"])] = np.column_stack((arrays["user_factors"], arrays["user_bias"]))
        counts = np.bincount(rows.users, minlength=n_users)
        target = user_part(rows.ratings, self.mean, arrays["item_bias"][rows.items])
        for whose, gram, side in ridge_systems(rows, n_users, table, target, np.zeros((d, d)), np.zeros((n_users, d))):
            penalty = np.maximum(config.regularization, _LEAST_PENALTY) * counts[whose]  # the training's is per rating
            users[whose] = np.linalg.solve(gram + penalty[:, None, None] * np.eye(d), side[:, :, None])[:, :, 0]
        arrays = arrays | {"user_factors": np.ascontiguousarray(users[:, :-1]), "user_bias": users[:, -1].copy()}
        return FactorRecommender(knowledge, config, arrays, self.mean, self.epochs, self.likes)

    def choices(self) -> dict[str, object]:
        """How many epochs were best on the validation rows."""
        return {"epochs": self.epochs}

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        save_arrays(folder / "factors.npz", **self.arrays)
        return {"mean": self.mean, "epochs": self.epochs, "likes": [self.likes.slope, self.likes.intercept]}


def fit(
    knowledge: Knowledge,
    rows: "Interactions | RowStream",
    config: Config,
    options: FitOptions,
) -> FactorRecommender:
    """Train with early stopping on the validation rows, or for exactly the epochs that the first fit kept.

    Rows of a stream are read anew in every epoch, in another order.

    Raises:
        InputError: if a GPU is asked for and there is none; DivergedError where the loss is no longer finite.
    """
    from recsys.data.loader import BlockLoader, RowStream
    from recsys.models.matrix_factorization.training import Problem
    from recsys.runtime.device import has_gpu

    if config.device == "cuda" and not has_gpu():
        raise InputError("parameter 'device': cuda needs a GPU that PyTorch can use, found none; pass device=auto")

    validation, context = options.validation, options.context
    first = options.warm_start if isinstance(options.warm_start, FactorRecommender) else None
    sizes = len(knowledge.user_ids), len(knowledge.item_ids)
    streamed = isinstance(rows, RowStream)
    problem = Problem(
        rows=BlockLoader(rows, *sizes, config.batch_size, options.seed) if isinstance(rows, RowStream) else rows,
        sizes=sizes,
        config=config.model_copy(update={"epochs": first.epochs}) if first else config,
        seed=options.seed,
        validation=validation,
        like_threshold=None if options.report is None else knowledge.like_threshold,
        memo=options.memo,
    )
    fit_factors = _engine(config, None if streamed else context)
    factors, _, best = fit_factors(problem, None if options.report is None else partial(_report_epoch, options.report))
    arrays = {
        "user_bias": factors.user_bias,
        "item_bias": factors.item_bias,
        "user_factors": factors.user_factors,
        "item_factors": factors.item_factors,
    }
    likes = first.likes if first else knowledge.calibration
    fitted = FactorRecommender(knowledge, config, arrays, factors.mean, best, likes)
    if validation is not None and (context is None or context.group.rank == 0):
        known = np.flatnonzero((validation.users >= 0) & (validation.items >= 0))
        predicted = fitted._rating(validation.users[known], validation.items[known])
        fitted.likes = calibrate(predicted, validation.ratings[known] >= knowledge.like_threshold)
    return fitted


def _engine(config: Config, context: "Context | None") -> "FitFactors":
    """What trains: of PyTorch and Numba, which take long to import, only the one that is used is imported."""
    if context is not None:
        from recsys.models.matrix_factorization.distributed import fit_factors_distributed

        return partial(fit_factors_distributed, context)

    from recsys.runtime.device import find_device

    if find_device(config.device) == "cpu":
        from recsys.models.matrix_factorization import compiled

        return compiled.fit_factors
    from recsys.models.matrix_factorization import sgd

    return sgd.fit_factors


def _report_epoch(report: Report, epoch: "Epoch") -> None:
    measured = {"train_rmse": epoch.train_rmse, "seconds": epoch.seconds}
    if epoch.validation_rmse is not None:
        measured["validation_rmse"] = epoch.validation_rmse
    if epoch.validation_auc is not None and math.isfinite(epoch.validation_auc):
        measured["validation_auc"] = epoch.validation_auc
    report(epoch.number, measured)


def suggest(trial: Any) -> Config:
    """The search space."""
    return Config(
        embedding_size=trial.suggest_int("embedding_size", 8, 128, log=True),
        learning_rate=trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
        regularization=trial.suggest_float("regularization", 0.02, 0.2, log=True),
    )


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> FactorRecommender:
    """Read the factors back."""
    weights = description["weights"]
    return FactorRecommender(
        knowledge,
        Config(**description["config"]),
        load_arrays(folder / "factors.npz"),
        float(weights["mean"]),
        int(weights["epochs"]),
        LikeCalibration(*weights["likes"]),
    )
