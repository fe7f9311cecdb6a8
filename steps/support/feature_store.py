"""The feature store as the steps open it: its folder, and the database that RECSYS_FEATURE_DATABASE names."""

import os
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from steps.support.entrypoint import given_folder

if TYPE_CHECKING:
    from recsys.data.dataset import Dataset
    from recsys.feature_store.offline import PointInTime
    from recsys.feature_store.store import Store

DATABASE = "RECSYS_FEATURE_DATABASE"
_INSTALL = "pip install -r src/recsys/feature_store/requirements.txt"


def open_store(parameters: Any) -> "Store":
    """The store of the parameters `folder` and `feature_store`; raises InputError where Feast is not installed."""
    try:
        from recsys.feature_store.store import Store
    except ModuleNotFoundError as error:
        raise InputError(
            f"parameter 'feature_store': {error.name} is needed, which is not installed; {_INSTALL}"
        ) from None
    path = given_folder(parameters.folder, parameters.feature_store, "feature_store")
    return Store(path, os.environ.get(DATABASE, ""))


def point_in_time(parameters: Any, dataset: "Dataset") -> "PointInTime":
    """The features of a training; raises InputError where the store has those of another dataset."""
    store = open_store(parameters)
    from recsys.feature_store.offline import PointInTime

    return PointInTime(store, dataset)
