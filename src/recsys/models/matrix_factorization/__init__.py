"""The family matrix_factorization."""

from recsys.models.matrix_factorization.family import (
    DISTRIBUTED,
    SPARED_STEPS,
    STREAMS,
    Config,
    FactorRecommender,
    fit,
    load,
    suggest,
)

__all__ = ["DISTRIBUTED", "SPARED_STEPS", "STREAMS", "Config", "FactorRecommender", "fit", "load", "suggest"]
