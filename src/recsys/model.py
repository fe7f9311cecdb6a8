"""The MLflow model: a table of user and item ids in, expected ratings and probabilities of a like out.

MLflow keeps this file with every version and runs it when the version is loaded (a model from code).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

from recsys.arrays import Ids
from recsys.families import load_recommender

# Ids are text. The schema says "any", so that a client with integer ids is served too: MLflow would refuse an
# integer where the schema says text.
_ANY = AnyType()  # type: ignore[no-untyped-call]
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(_ANY, "user_id"), ColSpec(_ANY, "item_id")]),
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
        """Predict; raises ValueError naming the row where an id is missing or not one value."""
        rating, like = self.recommender.predict(_as_text(model_input, "user_id"), _as_text(model_input, "item_id"))
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


set_model(RecommenderModel())
