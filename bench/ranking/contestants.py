"""Who takes part: the file that runs each, what it needs installed, and the settings that are searched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.environments import OURS, Environment, environment

MODELS = Path(__file__).with_name("models")
_NUMERIC = ("numpy==2.4.6", "scipy==1.17.1")
_CORNAC = ("cornac==2.6.0", "torch==2.13.0", *_NUMERIC)

INPUTS = ("all", "ratings", "likes")
"""What is learnt from: every rating as 1, every rating over the highest, likes as 1."""

Range = tuple[float, float]
"""From and to, drawn on a logarithmic scale; whole numbers where both are."""


@dataclass(frozen=True)
class Contestant:
    """One line of the table. `first` is tried first: the library's defaults, or settings known to do well."""

    name: str
    model: Path
    pins: tuple[str, ...] = ()
    first: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Range] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it chooses by the validation rows itself."""
        return not self.pins

    def environment(self) -> Environment:
        """Where it runs; raises UnavailableError."""
        return environment(self.pins) if self.pins else OURS

    def draws(self, trials: int, seed: int) -> Sequence[dict[str, Any]]:
        """Settings to try: `first` by each input, then at random."""
        rng = np.random.default_rng(seed)
        found = [{**self.first, "input": kind} for kind in INPUTS]
        while self.space and len(found) < trials:
            drawn = {name: _draw(rng, low, high) for name, (low, high) in self.space.items()}
            found.append({**self.first, **drawn, "input": INPUTS[rng.integers(len(INPUTS))]})
        return found[:trials]


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return round(value) if isinstance(low, int) and isinstance(high, int) else float(f"{value:.4g}")


PEERS = (
    Contestant("what is popular", MODELS / "popularity.py", _NUMERIC),
    Contestant(
        "implicit ALS",
        MODELS / "implicit_als.py",
        ("implicit==0.7.2", *_NUMERIC),
        first={"factors": 64, "regularization": 0.01, "alpha": 1.0, "iterations": 15},
        space={"factors": (16, 256), "regularization": (0.001, 100.0), "alpha": (0.5, 40.0)},
    ),
    Contestant(
        "RecTools EASE",
        MODELS / "rectools_ease.py",
        ("RecTools==0.19.0", "numpy==1.26.4", "scipy==1.17.1", "pandas==2.3.3"),
        first={"regularization": 500.0},
        space={"regularization": (20.0, 2000.0)},
    ),
    Contestant(
        "LensKit ItemKNN",
        MODELS / "lenskit_knn.py",
        ("lenskit==2025.8.1", "torch==2.13.0", "pandas==2.3.3", *_NUMERIC),
        first={"max_nbrs": 20, "min_sim": 1e-6},
        space={"max_nbrs": (5, 400), "min_sim": (1e-6, 0.2)},
    ),
    Contestant(  # scikit-sparse is built on installing: with the header files of SuiteSparse, libsuitesparse-dev
        "SANSA",
        MODELS / "sansa_sparse.py",
        ("sansa==1.1.0", "scikit-sparse==0.4.16", "numba==0.68.1", "numpy==1.26.4", "scipy==1.17.1"),
        first={"l2": 20.0, "weight_matrix_density": 0.05},
        space={"l2": (5.0, 500.0), "weight_matrix_density": (0.005, 0.2)},
    ),
    Contestant(
        "cornac MultiVAE",
        MODELS / "cornac_multivae.py",
        _CORNAC,
        first={"k": 50, "hidden": 100, "n_epochs": 100, "batch_size": 128, "learning_rate": 0.001, "beta": 1.0},
        space={"k": (20, 200), "hidden": (50, 400), "n_epochs": (30, 200), "beta": (0.1, 1.0)},
    ),
    Contestant(
        "cornac BiVAE",
        MODELS / "cornac_bivae.py",
        _CORNAC,
        first={"k": 50, "encoder": 100, "n_epochs": 500, "batch_size": 128, "learning_rate": 0.001},
        space={"k": (20, 100), "encoder": (20, 200), "n_epochs": (50, 500)},
    ),
)
