"""Scores computed by the version itself from a feature store's newest values, where it learnt from such a store.

All else, lists and users of whom only feedback is known, is answered from the served form.
"""

from pathlib import Path

from recsys.errors import InputError
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Recommender
from recsys.models.random_forest import ForestRecommender

_FOLDER = "recommender"  # in that of the served form


def keep_scorer(recommender: Recommender, form: Path, store: str, database: str) -> bool:
    """Put a version beside its served form, if it learnt from a feature store; whether it did.

    Raises:
        InputError: if the store's features are older than those it learnt from, or Feast is not installed.
    """
    if not isinstance(recommender, ForestRecommender) or recommender.stored is None:
        return False
    recommender.save(form / _FOLDER)
    load_scorer(form, store, database)  # what the workers will meet is told here
    return True


def load_scorer(form: Path, store: str, database: str) -> Recommender | None:
    """The version beside a served form, reading from the store; None where there is none. Raises InputError."""
    if not store or not (form / _FOLDER).is_dir():
        return None
    recommender = load_recommender(form / _FOLDER)
    assert isinstance(recommender, ForestRecommender)
    return _with_store(recommender, store, database)


def _with_store(recommender: ForestRecommender, store: str, database: str) -> Recommender:
    try:
        from recsys.feature_store.online import OnlineFeatures
        from recsys.feature_store.store import Origin, Store
    except ModuleNotFoundError as error:
        raise InputError(
            f"parameter 'feature_store': {error.name} is needed, which is not installed; "
            "pip install -r src/recsys/feature_store/requirements.txt"
        ) from None
    assert recommender.stored
    opened = Store(Path(store), database)
    opened.check_not_older("the version", Origin(**recommender.stored))
    own = recommender.features
    recommender.features = OnlineFeatures(own.user, own.item, recommender.knowledge, opened)
    return recommender
