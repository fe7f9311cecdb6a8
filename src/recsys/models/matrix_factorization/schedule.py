"""The schedule of a training: its learning rate in each epoch, and when it stops."""

import math
from dataclasses import dataclass

from recsys.errors import DivergedError
from recsys.models.matrix_factorization.config import Config

# The learning rate at epoch t is learning_rate / (1 + DECAY * (t - 1)). It depends on nothing but t, so that
# a refit of N epochs repeats the steps that validation chose.
DECAY = 0.5


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows cost and reached."""

    number: int  # from 1
    seconds: float  # training and validation
    train_rmse: float  # of each row just before the step that used it, in the unit of the ratings
    validation_rmse: float | None
    validation_auc: float | None = None  # of the predicted ratings, ties counting half; NaN for one class


class TrainingSchedule:
    """The epochs so far, the best of them, and early stopping.

    Args:
        config: its epochs, patience and learning rate.
        scale: standard deviation of the ratings, by which RMSE is brought back to their unit.
    """

    def __init__(self, config: Config, scale: float) -> None:
        self.config, self.scale = config, scale
        self.history: list[Epoch] = []
        self.best_epoch = 0  # its number; 0 before the first
        self._lowest = math.inf

    @property
    def next_epoch(self) -> int:
        """Number of the next epoch, from 1."""
        return len(self.history) + 1

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch."""
        return self.config.learning_rate / (1 + DECAY * len(self.history))

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or none of the last `patience` epochs was better than those before."""
        done = len(self.history)
        return done >= self.config.epochs or done - self.best_epoch >= self.config.patience

    def add(self, epoch: Epoch) -> bool:
        """Record the next epoch; returns whether it is the best so far. Without validation every epoch is.

        Raises:
            DivergedError: its loss is not finite.
        """
        if not math.isfinite(epoch.train_rmse + (epoch.validation_rmse or 0.0)):
            raise DivergedError(
                f"parameter 'learning_rate': a rate that converges is needed; with {self.config.learning_rate:g} the "
                f"loss is not finite in epoch {epoch.number}; pass a lower one"
            )
        self.history.append(epoch)
        if epoch.validation_rmse is not None and epoch.validation_rmse >= self._lowest:
            return False
        self.best_epoch = epoch.number
        self._lowest = math.inf if epoch.validation_rmse is None else epoch.validation_rmse
        return True

    def rmse(self, mean_square_error: float) -> float:
        """The RMSE, in the unit of the ratings, of a mean square error of standardised ratings."""
        return self.scale * math.sqrt(mean_square_error)
