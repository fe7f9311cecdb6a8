"""Measures of predictions: arrays in, a float or one value a user out.

Every function is defined on at least one row; where a measure does not exist (no like, only likes), it says
so with NaN, which callers report as "undefined" and never log. A like is a rating of at least the threshold.
"""

from recsys.metrics.classification import accuracy, auc, auc_by_ranks, calibration_error, f1_score, log_loss, user_aucs
from recsys.metrics.ranking import (
    average_precision,
    coverage,
    gini,
    hits,
    intra_list_diversity,
    ndcg,
    novelty,
    precision,
    recall,
    reciprocal_rank,
)
from recsys.metrics.regression import interval_coverage, mae, rmse

__all__ = [
    "accuracy",
    "auc",
    "auc_by_ranks",
    "average_precision",
    "calibration_error",
    "coverage",
    "f1_score",
    "gini",
    "hits",
    "interval_coverage",
    "intra_list_diversity",
    "log_loss",
    "mae",
    "ndcg",
    "novelty",
    "precision",
    "recall",
    "reciprocal_rank",
    "rmse",
    "user_aucs",
]
