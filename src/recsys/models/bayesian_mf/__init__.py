"""The family bayesian_mf."""

from recsys.models.bayesian_mf.family import (
    DISTRIBUTED,
    SPARED_STEPS,
    BayesianRecommender,
    Config,
    fit,
    load,
    suggest,
)

__all__ = ["DISTRIBUTED", "SPARED_STEPS", "BayesianRecommender", "Config", "fit", "load", "suggest"]
