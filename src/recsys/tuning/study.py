"""What a study is about, and what is refused to share it."""

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna

from recsys.errors import InputError
from recsys.evaluation import PROTOCOL
from recsys.models.base.capabilities import capabilities
from recsys.models.base.family import family_module
from recsys.settings import Settings
from recsys.tuning import search_space
from recsys.tuning.search_space import Ranged, Ranges
from recsys.tuning.storage import RetryingStorage

_SPARED_TRIALS = 5  # what the pruner lets run to the end before it compares


@dataclass(frozen=True)
class SearchConfig:
    """What is searched, and how.

    `ranges` are a user's; `timeout` and `heartbeat` are in seconds.
    """

    family: str
    metric: str = "auc"
    direction: str = "maximize"
    ranges: Ranges = field(default_factory=dict)
    sampler: Literal["tpe", "random"] = "tpe"
    trials: int = 20
    timeout: float | None = None
    seed: int = 42
    heartbeat: int = 10


class StudyDefinition:
    """A search configuration on a dataset: what every worker of a study has to agree on."""

    def __init__(self, config: SearchConfig, data_version: str, name: str) -> None:
        self.config = config
        self.name = name
        self.data_version = data_version
        self.module = family_module(config.family)
        self.space = search_space.dimensions(self.module.suggest, config.ranges)

    def open(self, storage: RetryingStorage) -> optuna.Study:
        """The study, made where it is not there; to be called under its lock.

        Raises:
            InputError: where a study of this name is of something else.
        """
        config = self.config
        study = optuna.create_study(
            study_name=self.name,
            storage=storage,
            direction=optuna.study.StudyDirection[config.direction.upper()],
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=_SPARED_TRIALS, n_warmup_steps=capabilities(config.family).spared_reports
            ),
        )
        self._check(study)
        if not study.trials:
            study.enqueue_trial(self.default(), user_attrs={"default": True})
        return study

    def _check(self, study: optuna.Study) -> None:
        """Refuse a study of something else."""
        belongs = {
            "family": self.config.family,
            "data_version": self.data_version,
            "metric": self.config.metric,
            "direction": self.config.direction,
            "space": search_space.digest(self.space),
            "protocol": PROTOCOL,
        }
        found = dict(study.user_attrs)
        if study.trials and "family" in found:
            found.setdefault("protocol", "timed")  # trials of an earlier release were asked with the rows' timestamps
        if study.trials and not found.keys() >= belongs.keys():
            raise InputError(f"study {self.name!r} was not made by this project; pass another -P study=…")
        found["direction"] = study.direction.name.lower()
        for key, value in belongs.items():
            if found.setdefault(key, value) != value:
                raise InputError(
                    f"study {self.name!r} belongs to {key} {found[key]}, got {value}; pass another -P study=…"
                )
        for key, value in belongs.items():
            if key not in study.user_attrs:
                study.set_user_attr(key, value)

    def default(self) -> dict[str, Any]:
        """The default settings as a point of the space; nothing where they lie outside it."""
        values = self.module.Config().model_dump()
        inside = all(
            values[name] in dimension.range
            if dimension.kind == "choice"
            else dimension.range[0] <= values[name] <= dimension.range[1]
            for name, dimension in self.space.items()
        )
        return {name: values[name] for name in self.space} if inside else {}

    def sampler(self, ordinal: int) -> optuna.samplers.BaseSampler:
        """The sampler of the worker that joined the study as number `ordinal`, from 0."""
        # Workers of one seed, and the next search of a study, must not draw the same again.
        seed = self.config.seed + 1_000_003 * ordinal
        if self.config.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)

    def configure(self, trial: optuna.Trial) -> Settings:
        """The settings that a trial is to try."""
        if not trial.user_attrs.get("default"):
            return self.module.suggest(Ranged(trial, self.config.ranges))
        if self.default():
            self.module.suggest(Ranged(trial, self.config.ranges))  # so that the sampler knows what was tried
        return self.module.Config()
