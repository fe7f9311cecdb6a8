"""The MLflow model: pairs of user and item in, ratings and probabilities of a like out; users alone in, lists out.

MLflow keeps this file with every version and runs it when the version is loaded (a model from code).
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from recsys.arrays import Floats, Ids
from recsys.models.base.loading import load_recommender
from recsys.serving.integrity import STATEMENT, check_folder

# Ids are text. The schema says "any", so that a client with integer ids is served too: MLflow would refuse an
# integer where the schema says text.
_ANY = AnyType()  # type: ignore[no-untyped-call]
# In the output, either the first two columns or all the others are there.
_TEXTS, _NUMBERS = Array(DataType.string), Array(DataType.double)
COLUMNS = ("user_id", "item_id", "timestamp")
"""The names that every version takes."""
_OUTPUTS = Schema(
    [
        ColSpec(DataType.double, "rating", required=False),
        ColSpec(DataType.double, "like_probability", required=False),
        ColSpec(_TEXTS, "items", required=False),
        ColSpec(_NUMBERS, "scores", required=False),
        ColSpec(_NUMBERS, "like_probabilities", required=False),
        ColSpec(DataType.string, "policy", required=False),
        ColSpec(DataType.string, "note", required=False),
    ]
)
_PARAMS = ParamSchema(
    [
        ParamSpec("n", DataType.long, 10),
        ParamSpec("exclude_seen", DataType.boolean, True),
        ParamSpec("diversity", DataType.double, 0.0),
    ]
)
ARTIFACT = "recommender"
NAMES = "columns.json"  # beside the recommender: the names in the ratings learnt from, where they are others
_SHOWN = 3
_log = logging.getLogger("recsys")


def signature(names: Mapping[str, str]) -> ModelSignature:
    """What a version takes and answers; of `names`, by the names in COLUMNS, it takes the ratings' own names too."""
    own = [name for name in names.values() if name not in COLUMNS]
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(_ANY, name, required=name == "user_id" and not own) for name in COLUMNS
    ]
    inputs += [ColSpec(_ANY, name, required=False) for name in own]
    return ModelSignature(Schema(inputs), _OUTPUTS, _PARAMS)


def read_names(saved: Path) -> dict[str, str]:
    """What COLUMNS were called in the ratings that a saved recommender learnt from, where that was otherwise."""
    path = saved / NAMES
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


class RecommenderModel(PythonModel):
    """Answers a row for every row, in order: of a pair its rating, of a user alone the list.

    Of `user_id, item_id`, perhaps with `timestamp`, or by the names that these had in the ratings learnt from, the
    columns are `rating, like_probability`. Of `user_id` they are `items, scores, like_probabilities`, each a list with
    the best item first, `policy`, and `note`, which says why a list is shorter than `n`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the recommender saved with the model; raises InputError where a file is not what its statement says."""
        saved = Path(context.artifacts[ARTIFACT])
        model = saved.parent.parent
        if (model / STATEMENT).exists():  # not yet where MLflow tries a model that is being logged
            check_folder(model)
        self.recommender = load_recommender(saved)
        self.names = read_names(saved)

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
        table = self._with_our_names(model_input)
        if "user_id" not in table.columns:
            own = f", or {self.names['user_id']!r} as in the ratings learnt from," if "user_id" in self.names else ""
            given = ", ".join(map(str, model_input.columns))
            raise ValueError(f"column 'user_id'{own} is needed; the table has {given}")
        users = _as_text(table, "user_id")
        if "item_id" not in table.columns:
            return self._recommend(users, table.index, params or {})
        items = _as_text(table, "item_id")
        self._tell_unknown(users, items)
        rating, like = self.recommender.predict(users, items, _as_moments(table))
        return pd.DataFrame({"rating": rating, "like_probability": like}, index=table.index)

    def _with_our_names(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with columns by the names of the ratings learnt from renamed; our own names go first."""
        own = {name: ours for ours, name in self.names.items() if name in table and ours not in table}
        return table.rename(columns=own) if own else table

    def _tell_unknown(self, users: Ids, items: Ids) -> None:
        """Log which rows are answered by averages, since their user or item was not learnt from."""
        knowledge, unknown = self.recommender.knowledge, list[str]()
        rows = np.zeros(len(users), bool)
        for kind, ids, codes in (
            ("user", users, knowledge.user_codes(users)),
            ("item", items, knowledge.item_codes(items)),
        ):
            rows |= codes < 0
            unknown += [f"{kind} {name!r}" for name in dict.fromkeys(ids[codes < 0])]
        if unknown:
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            _log.warning(
                "%d of %d rows are answered by averages, their user or item was not learnt from: %s%s",
                rows.sum(),
                len(rows),
                ", ".join(unknown[:_SHOWN]),
                more,
            )

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
