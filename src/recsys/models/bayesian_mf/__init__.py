"""The family bayesian_mf."""

from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.family import CAPABILITIES, fit, suggest
from recsys.models.bayesian_mf.recommender import BayesianRecommender, load

__all__ = ["CAPABILITIES", "BayesianRecommender", "Config", "fit", "load", "suggest"]
