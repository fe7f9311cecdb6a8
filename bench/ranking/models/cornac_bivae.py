"""cornac: the bilateral variational autoencoder (Truong, Salah, Lauw 2021), Poisson likelihood, as it was published."""

from typing import Any

from cornac.models import BiVAECF
from models.cornac_scores import fit_and_score


def fit(rows: Any, settings: dict[str, Any], seed: int) -> Any:
    """Users without a row get NaN."""
    settings = {**settings, "encoder_structure": [settings["encoder"]]}
    del settings["encoder"]
    return fit_and_score(rows, BiVAECF(**settings, act_fn="tanh", likelihood="pois", seed=seed, use_gpu=False), seed)
