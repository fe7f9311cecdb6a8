"""Recommenders on disk: JSON, Parquet and NumPy arrays, no pickle."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array, Ids
from recsys.models.base.biases import Biases
from recsys.models.base.calibration import LikeCalibration
from recsys.models.base.knowledge import Knowledge

FORMAT = 1
DESCRIPTION = "recommender.json"

_SEEN = pa.schema({"user": pa.int32(), "item": pa.int32()})


def save_knowledge(knowledge: Knowledge, folder: Path) -> dict[str, Any]:
    """Write ids, biases and seen items as Parquet; returns the rest, for the description."""
    biases = knowledge.biases
    for side, ids, bias in (("user", knowledge.user_ids, biases.user), ("item", knowledge.item_ids, biases.item)):
        table = pa.table({f"{side}_id": pa.array(ids, pa.string()), "bias": bias})
        pq.write_table(table, folder / f"{side}s.parquet")
    with pq.ParquetWriter(folder / "seen.parquet", _SEEN) as writer:
        for some in knowledge.seen_blocks():
            writer.write_table(pa.table({"user": some[:, 0], "item": some[:, 1]}))
    feedback = {"feedback": "implicit"} if knowledge.implicit else {}
    return feedback | {
        "scale": list(knowledge.scale),
        "like_threshold": knowledge.like_threshold,
        "mean": biases.mean,
        "calibration": [knowledge.calibration.slope, knowledge.calibration.intercept],
    }


def load_knowledge(folder: Path, description: dict[str, Any]) -> Knowledge:
    """Read back what `save_knowledge` wrote; `description` is the content of recommender.json."""
    users, items = (pq.read_table(folder / f"{side}s.parquet") for side in ("user", "item"))
    seen = pq.read_table(folder / "seen.parquet")
    low, high = description["scale"]
    return Knowledge(
        user_ids=_text(users["user_id"]),
        item_ids=_text(items["item_id"]),
        seen=np.stack([seen["user"].to_numpy(), seen["item"].to_numpy()], axis=1),
        scale=(float(low), float(high)),
        like_threshold=float(description["like_threshold"]),
        biases=Biases(float(description["mean"]), users["bias"].to_numpy(), items["bias"].to_numpy()),
        calibration=LikeCalibration(*description["calibration"]),
        implicit=description.get("feedback") == "implicit",
    )


def save_arrays(path: Path, **arrays: Array) -> None:
    """Write named arrays as one .npz file, whatever its name."""
    with path.open("wb") as file:  # to a path of another ending NumPy would add one
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of the arrays


def load_arrays(path: Path) -> dict[str, Array]:
    """Read what `save_arrays` wrote; pickled content is refused."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _text(column: Any) -> Ids:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
