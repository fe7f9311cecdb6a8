"""The contract of a trained model: ids in, expected ratings and probabilities of a like out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array, Codes, Floats, Ids
from recsys.biases import Biases, LikeCalibration
from recsys.dataset import Interactions
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.folding import Folded

FORMAT = 1

_SEEN = pa.schema({"user": pa.int32(), "item": pa.int32()})
_SEEN_ROWS = 1 << 20


class Predictions(NamedTuple):
    """Two arrays of shape (n,): the expected rating, within the scale, and the probability of a like."""

    rating: Floats
    like_probability: Floats


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What every recommender carries beside its own weights: ids, seen items, scale, and what to fall back on.

    Users and items are known by their code, the position of their id. `seen` holds the (user, item) codes of
    every rating learnt from, sorted by user, shape (n, 2).
    """

    user_ids: Ids
    item_ids: Ids
    seen: Codes
    scale: tuple[float, float]
    like_threshold: float
    biases: Biases
    calibration: LikeCalibration

    @cached_property
    def _user_index(self) -> "pd.Index[str]":
        return pd.Index(self.user_ids)

    @cached_property
    def _item_index(self) -> "pd.Index[str]":
        return pd.Index(self.item_ids)

    def user_codes(self, user_ids: Ids) -> Codes:
        """The code of each id, -1 for an unknown one: shape (n,)."""
        return self._user_index.get_indexer(pd.Index(user_ids)).astype(np.int32)

    def item_codes(self, item_ids: Ids) -> Codes:
        """The code of each id, -1 for an unknown one: shape (n,)."""
        return self._item_index.get_indexer(pd.Index(item_ids)).astype(np.int32)

    def seen_items(self, user: int) -> Codes:
        """The items a user rated in the rows learnt from."""
        first, last = np.searchsorted(self.seen[:, 0], [user, user + 1])
        return self.seen[first:last, 1]

    def seen_blocks(self) -> Iterator[Codes]:
        """The rows of `seen`, some at a time: it may be mapped from a file and larger than memory."""
        for start in range(0, len(self.seen), _SEEN_ROWS):
            yield self.seen[start : start + _SEEN_ROWS]

    def count_seen(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes, each of shape (n,), were learnt from."""
        width = len(self.item_ids)
        known = (users >= 0) & (items >= 0)
        pairs, times = np.unique(users[known].astype(np.int64) * width + items[known], return_counts=True)
        found = 0
        for some in self.seen_blocks():
            mine = np.isin(pairs, some[:, 0].astype(np.int64) * width + some[:, 1])
            found += int(times[mine].sum())
        return found


class Recommender(ABC):
    """A trained model of one family. Unknown users and items never fail: they get the bias fallback."""

    family: str

    def __init__(self, knowledge: Knowledge, config: Settings) -> None:
        self.knowledge = knowledge
        self.config = config

    @abstractmethod
    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        """Predictions for known users and items, not clipped; every code is at least 0."""

    def _score_known_at(self, users: Codes, items: Codes, timestamps: Floats) -> Predictions:
        """As `_score_known`, for moments (n,), NaN where unknown; a family that knows no time ignores them."""
        return self._score_known(users, items)

    def importances(self) -> dict[str, float]:
        """How much each input feature counts, where the family has input features."""
        return {}

    def choices(self) -> dict[str, object]:
        """What the fit settled itself, where there was anything left open by the settings."""
        return {}

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        """Write what the family adds to the knowledge; what is returned goes to the family's `load` as JSON."""
        return {}

    def score(self, users: Codes, items: Codes, timestamps: Floats | None = None) -> Predictions:
        """Predict for pairs of codes, each of shape (n,); -1 stands for an unknown id, NaN for an unknown moment."""
        knowledge = self.knowledge
        known = (users >= 0) & (items >= 0)
        pairs = (users, items) if known.all() else (users[known], items[known])
        if timestamps is None:
            found = self._score_known(*pairs)
        else:
            found = self._score_known_at(*pairs, timestamps if known.all() else timestamps[known])
        if known.all():
            rating, like = found
        else:
            rating = knowledge.biases.rating(users, items)
            like = knowledge.calibration.probability(rating)
            rating[known], like[known] = found
        return Predictions(np.clip(rating, *knowledge.scale), like)

    def predict(self, user_ids: Ids, item_ids: Ids, timestamps: Floats | None = None) -> Predictions:
        """Predict for pairs of raw ids (text), each of shape (n,), at moments in the unit of those learnt from."""
        return self.score(self.knowledge.user_codes(user_ids), self.knowledge.item_codes(item_ids), timestamps)

    def fold_in(self, user_ids: Ids, item_ids: Ids, ratings: Floats) -> "Folded":
        """A recommender that knows these users from these ratings, each of shape (n,), without training again.

        Raises:
            InputError: if the family cannot do it, or a rating is outside the scale.
        """
        from recsys.folding import fold_in

        return fold_in(self, user_ids, item_ids, ratings)

    def save(self, folder: Path) -> None:
        """Write the recommender as JSON, Parquet and NumPy arrays; no pickle."""
        folder.mkdir(parents=True, exist_ok=True)
        knowledge, biases = self.knowledge, self.knowledge.biases
        for side, ids, bias in (
            ("user", knowledge.user_ids, biases.user),
            ("item", knowledge.item_ids, biases.item),
        ):
            table = pa.table({f"{side}_id": pa.array(ids, pa.string()), "bias": bias})
            pq.write_table(table, folder / f"{side}s.parquet")
        with pq.ParquetWriter(folder / "seen.parquet", _SEEN) as writer:
            for some in knowledge.seen_blocks():
                writer.write_table(pa.table({"user": some[:, 0], "item": some[:, 1]}))
        description = {
            "format": FORMAT,
            "family": self.family,
            "config": self.config.model_dump(),
            "scale": list(knowledge.scale),
            "like_threshold": knowledge.like_threshold,
            "mean": biases.mean,
            "calibration": [knowledge.calibration.slope, knowledge.calibration.intercept],
            "weights": self._save_weights(folder),
        }
        text = json.dumps(description, indent=2)
        (folder / "recommender.json").write_text(text + "\n", encoding="utf-8")


def load_knowledge(folder: Path, description: dict[str, Any]) -> Knowledge:
    """Read back what `Recommender.save` wrote; `description` is the content of recommender.json."""
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
    )


def sorted_pairs(rows: Interactions) -> Codes:
    """The (user, item) codes of rows, sorted by user, shape (n, 2): what `Knowledge.seen` holds."""
    order = np.argsort(rows.users, kind="stable")
    return np.stack([rows.users[order], rows.items[order]], axis=1).astype(np.int32)


def _text(column: Any) -> Ids:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def save_arrays(path: Path, **arrays: Array) -> None:
    """Write named arrays as one .npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of the arrays


def load_arrays(path: Path) -> dict[str, Array]:
    """Read what `save_arrays` wrote; pickled content is refused."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
