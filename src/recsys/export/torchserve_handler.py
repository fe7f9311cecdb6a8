"""TorchServe's handler of a version: a program of its own, in the .mar beside the files of the version.

A request is JSON: `user_id` and `item_id`, lists of the same length, for scores; `user_id` alone, perhaps with `n`,
`exclude_seen` and `diversity`, for lists.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

VERSION = "version"  # folder of the version's files in the .mar
_COLUMNS = ("user_id", "item_id", "timestamp")


class Handler:
    """Answers as the version's MLflow model answers: by the code that travels with it."""

    def initialize(self, context: Any) -> None:
        """Load the version; raises InputError where a file is not the one registered."""
        place = Path(context.system_properties["model_dir"]) / VERSION
        sys.path.insert(0, str(place / "code"))
        from recsys.serving.pyfunc_model import ARTIFACT, RecommenderModel

        self._model = RecommenderModel()
        self._model.load_context(SimpleNamespace(artifacts={ARTIFACT: str(place / "artifacts" / ARTIFACT)}))  # type: ignore[arg-type]

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """One answer a request: a list of records, or what is wrong, with the status 400."""
        return [self._answer(one.get("body", one.get("data")), context, at) for at, one in enumerate(data)]

    def _answer(self, body: Any, context: Any, at: int) -> Any:
        try:
            asked = json.loads(body) if isinstance(body, str | bytes | bytearray) else body
            if not isinstance(asked, dict):
                raise ValueError(f"a JSON object with user_id is needed, got {type(asked).__name__}")
            table = pd.DataFrame({name: asked[name] for name in _COLUMNS if name in asked}, dtype=object)
            rest = {name: value for name, value in asked.items() if name not in _COLUMNS}
            answers = self._model.predict(None, table, rest)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            context.set_response_status(code=400, idx=at)
            return {"error": str(error)}
        return json.loads(answers.to_json(orient="records", double_precision=15))
