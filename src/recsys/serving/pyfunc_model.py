"""The MLflow model: a table of user and item ids in, expected ratings and probabilities of a like out.

MLflow keeps this file with every version and runs it when the version is loaded (a model from code).
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

from recsys.arrays import Floats, Ids
from recsys.models.base.loading import load_recommender
from recsys.serving.integrity import STATEMENT, check_folder

# Ids are text. The schema says "any", so that a client with integer ids is served too: MLflow would refuse an
# integer where the schema says text.
_ANY = AnyType()  # type: ignore[no-untyped-call]
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(_ANY, "user_id"), ColSpec(_ANY, "item_id"), ColSpec(_ANY, "timestamp", required=False)]),
    outputs=Schema([ColSpec(DataType.double, "rating"), ColSpec(DataType.double, "like_probability")]),
)
ARTIFACT = "recommender"


class RecommenderModel(PythonModel):
    """Answers one row of `rating, like_probability` for every row of `user_id, item_id`, in order."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the recommender saved with the model; raises InputError where a file is not what its statement says."""
        saved = Path(context.artifacts[ARTIFACT])
        model = saved.parent.parent
        if (model / STATEMENT).exists():  # not yet where MLflow tries a model that is being logged
            check_folder(model)
        self.recommender = load_recommender(saved)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict; raises ValueError naming the row where an id is missing or not one value, or a moment no number."""
        users, items = _as_text(model_input, "user_id"), _as_text(model_input, "item_id")
        rating, like = self.recommender.predict(users, items, _as_moments(model_input))
        return pd.DataFrame({"rating": rating, "like_probability": like}, index=model_input.index)


def _as_text(table: pd.DataFrame, column: str) -> Ids:
    if column not in table.columns:
        raise ValueError(f"column {column!r} is needed; the table has {', '.join(map(str, table.columns))}")
    values = table[column]
    if pd.api.types.is_integer_dtype(values.dtype) and not values.hasnans:
        return values.to_numpy().astype(str).astype(object)
    ids = np.empty(len(values), object)
    for row, value in enumerate(values):
        if isinstance(value, str):
            ids[row] = value.strip()
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            ids[row] = str(value)
        elif isinstance(value, float) and value.is_integer():
            ids[row] = str(int(value))  # pandas turns integers into floats where another row lacks one
        else:
            ids[row] = ""
        if not ids[row]:
            raise ValueError(f"row {row}: column {column!r}: an id (text or integer) is needed, got {value!r}")
    return ids


def _as_moments(table: pd.DataFrame) -> Floats | None:
    """The column `timestamp`, if there is one: numbers as in the ratings learnt from, dates as seconds since 1970."""
    if "timestamp" not in table.columns:
        return None
    moments = np.full(len(table), np.nan)
    for row, value in enumerate(table["timestamp"]):
        if value is None or pd.isna(value) is True:
            continue  # an unknown moment
        if isinstance(value, datetime):
            moment = pd.Timestamp(value)
            moments[row] = (moment.tz_localize("UTC") if moment.tzinfo is None else moment).timestamp()
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value):
            moments[row] = value
        else:
            raise ValueError(f"row {row}: column 'timestamp': a number, a date or nothing is needed, got {value!r}")
    return moments


set_model(RecommenderModel())
