"""cornac: the variational autoencoder with a multinomial likelihood (Liang et al. 2018, "Mult-VAE")."""

from typing import Any

from cornac.models import VAECF
from models.cornac_scores import fit_and_score


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Every value counts as 1, as the library has it. Users without a row get NaN."""
    settings = {**settings, "autoencoder_structure": [settings["hidden"]]}
    del settings["hidden"]
    return fit_and_score(rows, VAECF(**settings, act_fn="tanh", likelihood="mult", seed=seed, use_gpu=False), seed)
