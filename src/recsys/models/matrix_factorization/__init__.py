"""The family matrix_factorization."""

from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.family import CAPABILITIES, FactorRecommender, fit, load, suggest

__all__ = ["CAPABILITIES", "Config", "FactorRecommender", "fit", "load", "suggest"]
