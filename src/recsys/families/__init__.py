"""Versions registered by the release before import this: kept for one release."""

from recsys.models.base.loading import load_recommender

__all__ = ["load_recommender"]
