"""The family matrix_factorization."""

from recsys.models.matrix_factorization.family import CAPABILITIES, Config, FactorRecommender, fit, load, suggest

__all__ = ["CAPABILITIES", "Config", "FactorRecommender", "fit", "load", "suggest"]
