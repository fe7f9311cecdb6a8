"""Who takes part: the file that runs each, what it needs installed, and the settings that are searched."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.environments import OURS, Environment, environment
from recsys.models.base.family import family_module

MODELS = Path(__file__).with_name("models")
NUMERIC = ("numpy==2.4.6", "scipy==1.17.1")
# myfm imports pkg_resources, which later setuptools lack.
MYFM = ("myfm==0.4.0", "setuptools==80.9.0", "pandas==2.3.3", *NUMERIC)
SURPRISE = ("scikit-surprise==1.1.5", *NUMERIC)

Range = tuple[float, float]
"""From and to, searched on a logarithmic scale; whole numbers where both are."""


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    `first` is what a search tries first and a comparison uses where no search has been: the library's defaults, or
    settings known to do well. `space` is what a search may change; ours declare theirs themselves.
    """

    name: str
    model: Path
    pins: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Range] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is one of this project's families, and can show its fit step by step."""
        return "family" in self.fixed

    def environment(self) -> Environment:
        """Where it runs; raises UnavailableError."""
        return environment(self.pins) if self.pins else OURS

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Settings for an Optuna trial."""
        if self.ours:
            config = family_module(self.fixed["family"]).suggest(trial)
            return config.model_dump(exclude_defaults=True)
        return {name: _suggest(trial, name, low, high) for name, (low, high) in self.space.items()}


def _suggest(trial: Any, name: str, low: float, high: float) -> Any:
    whole = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=True)


def ours(line: str) -> Contestant:
    """One of this project's families, with its defaults first: its name and perhaps settings, as in `bias x=1`."""
    family, *pairs = line.split()
    fixed = dict(pair.split("=", 1) for pair in pairs)
    return Contestant(f"recsys {line}", MODELS / "ours.py", fixed={"family": family, **fixed})


PEERS = (
    Contestant(
        "Surprise SVD",
        MODELS / "surprise_sgd.py",
        SURPRISE,
        fixed={"algorithm": "SVD"},
        first={"n_factors": 100, "n_epochs": 20, "lr_all": 0.005, "reg_all": 0.02},
        space={"n_factors": (10, 200), "n_epochs": (10, 80), "lr_all": (0.002, 0.02), "reg_all": (0.01, 0.2)},
    ),
    Contestant(
        "Surprise SVD++",
        MODELS / "surprise_sgd.py",
        SURPRISE,
        fixed={"algorithm": "SVDpp", "cache_ratings": True},  # the cache is the faster way
        first={"n_factors": 20, "n_epochs": 20, "lr_all": 0.007, "reg_all": 0.02},
        space={"n_factors": (5, 40), "n_epochs": (10, 40), "lr_all": (0.003, 0.015), "reg_all": (0.01, 0.2)},
    ),
    Contestant(
        "cornac MF",
        MODELS / "cornac_mf.py",
        ("cornac==2.6.0", *NUMERIC),
        first={"k": 32, "max_iter": 30, "learning_rate": 0.01, "lambda_reg": 0.05},
        space={"k": (8, 128), "max_iter": (15, 120), "learning_rate": (0.003, 0.03), "lambda_reg": (0.01, 0.2)},
    ),
    Contestant(
        "LensKit BiasedMF",
        MODELS / "lenskit_als.py",
        ("lenskit==2025.8.1", "torch==2.13.0", "pandas==2.3.3", *NUMERIC),
        first={"embedding_size": 50, "epochs": 10, "regularization": 0.1, "damping": 5.0},
        space={"embedding_size": (8, 100), "epochs": (5, 30), "regularization": (0.03, 1.0), "damping": (1.0, 20.0)},
    ),
    Contestant(
        "myFM",
        MODELS / "myfm_gibbs.py",
        MYFM,
        fixed={"implicit": False, "sessions": False},
        first={"rank": 16, "n_iter": 100},
        space={"rank": (4, 64), "n_iter": (50, 300)},
    ),
    Contestant(
        "myFM, SVD++ terms",
        MODELS / "myfm_gibbs.py",
        MYFM,
        fixed={"implicit": True, "sessions": False},
        first={"rank": 16, "n_iter": 100},
        space={"rank": (4, 64), "n_iter": (50, 300)},
    ),
    Contestant(  # asked with the test rows' timestamps, as ours is with time=true
        "myFM, SVD++ terms and sessions",
        MODELS / "myfm_gibbs.py",
        MYFM,
        fixed={"implicit": True, "sessions": True},
        first={"rank": 16, "n_iter": 100},
        space={"rank": (4, 64), "n_iter": (50, 300)},
    ),
)
FAMILIES = ("bayesian_mf", "bayesian_mf time=true", "matrix_factorization", "bias")
