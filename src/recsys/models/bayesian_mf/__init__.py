"""The family bayesian_mf."""

from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.family import CAPABILITIES, BayesianRecommender, fit, load, suggest

__all__ = ["CAPABILITIES", "BayesianRecommender", "Config", "fit", "load", "suggest"]
