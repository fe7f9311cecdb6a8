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
        """Load the recommender saved with the model."""
        self.recommender = load_recommender(Path(context.artifacts[ARTIFACT]))

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
        if value is None or pd.isna(value) is True or value == "":
            continue  # an unknown moment
        if isinstance(value, datetime | str):
            moments[row] = _seconds(value, row)
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value):
            moments[row] = value
        else:
            raise ValueError(_no_moment(row, value))
    return moments


def _seconds(value: datetime | str, row: int) -> float:
    """Seconds since 1970 of a date, which is text where it came by JSON; without a zone it is in UTC."""
    try:
        moment = pd.Timestamp(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except ValueError:
        raise ValueError(_no_moment(row, value)) from None
    return float((moment.tz_localize("UTC") if moment.tzinfo is None else moment).timestamp())


def _no_moment(row: int, value: object) -> str:
    return (
        f"row {row}: column 'timestamp': a number, a date such as 2024-05-31T12:00:00 or nothing is needed, got "
        f"{value!r}"
    )


set_model(RecommenderModel())
