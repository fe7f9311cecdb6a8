"""Scores by ONNX Runtime from the graph of a version that lies beside its served form.

All else, lists and users of whom only feedback is known, is answered from the served form.
"""

from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Ids
from recsys.errors import InputError
from recsys.models.base.recommender import Predictions
from recsys.serving.ids import IdTable

GRAPH = "scores.onnx"  # in the folder of the served form


def missing(error: ModuleNotFoundError) -> InputError:
    """What is told of a package that is not installed."""
    return InputError(
        f"ONNX needs {error.name}, which is not installed; pip install -r src/recsys/export/requirements.txt"
    )


def import_runtime() -> Any:
    """ONNX Runtime; raises InputError where it is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing(error) from None
    return onnxruntime


def open_session(path: Path) -> Any:
    """A graph that is ready to run, in one thread; raises InputError where ONNX Runtime is not installed."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class GraphScorer:
    """Scores pairs by a graph, whose users and items are codes."""

    def __init__(self, session: Any, users: IdTable, items: IdTable) -> None:
        self._session, self._users, self._items = session, users, items

    def predict(self, user_ids: Ids, item_ids: Ids) -> Predictions:
        """Expected ratings and probabilities of a like, (n,) each; -1 leads the graph to what is unknown."""
        users, items = (
            np.fromiter(map(table.find, ids), np.int64, len(ids))
            for table, ids in ((self._users, user_ids), (self._items, item_ids))
        )
        rating, like = self._session.run(["rating", "like_probability"], {"user": users, "item": items})
        return Predictions(rating.astype(np.float64), like.astype(np.float64))


def load_scorer(form: Path, users: IdTable, items: IdTable) -> GraphScorer | None:
    """The graph beside a served form; None where its version has none. Raises InputError without ONNX Runtime."""
    return GraphScorer(open_session(form / GRAPH), users, items) if (form / GRAPH).is_file() else None
