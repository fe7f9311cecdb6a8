"""A family that learns one number, step by step and together: a step left out or done twice would be seen in it."""

import time
from typing import Any, Literal

from pydantic import Field

from recsys.errors import DivergedError, InputError, StoppedError
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.recommender import Predictions, Recommender
from recsys.settings import Settings

CAPABILITIES = Capabilities(shardings=("none",))
EPOCH = 5  # steps


class Config(Settings):
    steps: int = Field(20, ge=1, description="steps to take")
    pause: float = Field(0.0, ge=0, description="seconds a step takes")
    fault: Literal["none", "raise", "refuse", "diverge"] = Field("none", description="what rank 1 does at step 7")


class CountingRecommender(Recommender):
    family = "counting"

    def __init__(self, knowledge, config, total):
        super().__init__(knowledge, config)
        self.total = total

    def _score_known(self, users, items):
        rating = self.knowledge.biases.rating(users, items)
        return Predictions(rating, self.knowledge.calibration.probability(rating))

    def _save_weights(self, folder):
        return {"total": self.total}


def fit(knowledge, rows, config, options):
    """The sum over all steps s and rows of s times the rating."""
    import torch

    context, report = options.context, options.report
    assert (options.warm_start is None) == (options.validation is not None)
    assert options.warm_start is None or options.warm_start.total > 0
    if context is None:
        total = sum(range(config.steps + 1)) * float(rows.ratings.sum())
        return CountingRecommender(knowledge, config, total)
    group = context.group
    state = {"step": torch.zeros((), dtype=torch.int64), "total": torch.zeros((), dtype=torch.float64)}
    state = context.checkpoints.load(state) or state
    share = rows.ratings[group.rank :: group.size]
    for step in range(int(state["step"]) + 1, config.steps + 1):
        time.sleep(config.pause)
        if step == 7 and group.rank == group.size - 1:
            _fail(config.fault)
        context.beat(step, True)
        stopped = group.agree(context.is_told_to_stop())
        state["total"] += group.sum(torch.tensor(step * float(share.sum()), dtype=torch.float64))
        context.beat(step, False)
        state["step"].fill_(step)
        if step % EPOCH == 0 and report:
            report(step // EPOCH, {"train_rmse": 1.0 / step, "seconds": EPOCH * config.pause})
        if stopped or context.checkpoints.is_due(at_epoch_end=step % EPOCH == 0):
            context.checkpoints.save(state)
        if stopped:
            raise StoppedError
    return CountingRecommender(knowledge, config, float(state["total"]))


def _fail(fault):
    if fault == "raise":
        raise ValueError("the tray is empty")
    if fault == "refuse":
        raise InputError("parameter 'steps': an even number is needed, got 20")
    if fault == "diverge":
        raise DivergedError("parameter 'steps': fewer are needed")


def suggest(trial: Any) -> Config:
    return Config()


def load(folder, knowledge, description):
    return CountingRecommender(knowledge, Config(**description["config"]), description["weights"]["total"])
