"""The MLflow model: pairs of user and item in, ratings and probabilities of a like out; users alone in, lists out.

MLflow keeps this file with every version and runs it when the version is loaded (a model from code).
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from recsys.arrays import Floats, Ids
from recsys.models.base.loading import load_recommender
from recsys.serving.integrity import STATEMENT, check_folder

# Ids are text. The schema says "any", so that a client with integer ids is served too: MLflow would refuse an
# integer where the schema says text.
_ANY = AnyType()  # type: ignore[no-untyped-call]
# In the output, either the first two columns or all the others are there.
_TEXTS, _NUMBERS = Array(DataType.string), Array(DataType.double)
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(_ANY, "user_id"),
            ColSpec(_ANY, "item_id", required=False),
            ColSpec(_ANY, "timestamp", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.double, "rating", required=False),
            ColSpec(DataType.double, "like_probability", required=False),
            ColSpec(_TEXTS, "items", required=False),
            ColSpec(_NUMBERS, "scores", required=False),
            ColSpec(_NUMBERS, "like_probabilities", required=False),
            ColSpec(DataType.string, "policy", required=False),
            ColSpec(DataType.string, "note", required=False),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("n", DataType.long, 10),
            ParamSpec("exclude_seen", DataType.boolean, True),
            ParamSpec("diversity", DataType.double, 0.0),
        ]
    ),
)
ARTIFACT = "recommender"


class RecommenderModel(PythonModel):
    """Answers a row for every row, in order: of a pair its rating, of a user alone the list.

    Of `user_id, item_id`, perhaps with `timestamp`, the columns are `rating, like_probability`. Of `user_id` they are
    `items, scores, like_probabilities`, each a list with the best item first, `policy`, and `note`, which says why a
    list is shorter than `n`.
    """

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
        """Predict, or recommend where there is no column `item_id`.

        Args:
            context: as loaded; not used.
            model_input: the table.
            params: of lists only: `n` items, `exclude_seen`, `diversity` from 0 to 1.

        Raises:
            ValueError: naming the row where an id is missing or not one value, or a moment no number; for parameters
                out of range; and for lists of a version that has none.
        """
        users = _as_text(model_input, "user_id")
        if "item_id" not in model_input.columns:
            return self._recommend(users, model_input.index, params or {})
        items = _as_text(model_input, "item_id")
        rating, like = self.recommender.predict(users, items, _as_moments(model_input))
        return pd.DataFrame({"rating": rating, "like_probability": like}, index=model_input.index)

    def _recommend(self, users: Ids, index: "pd.Index[Any]", params: dict[str, Any]) -> pd.DataFrame:
        made = self.recommender.recommend(
            users,
            params.get("n", 10),
            exclude_seen=params.get("exclude_seen", True),
            diversity=params.get("diversity", 0.0),
        )
        columns = {
            "items": [items.tolist() for items in made.items],
            "scores": [scores.tolist() for scores in made.scores],
            "like_probabilities": [likes.tolist() for likes in made.probabilities],
            "policy": made.policy,
            "note": made.notes,
        }
        return pd.DataFrame(columns, index=index)


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
