"""The newest features, as the online store has them: written, compared with the dataset, and read one by one."""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Codes, Floats, Ids
from recsys.data.dataset import Dataset
from recsys.data.features import Features
from recsys.data.parquet_store import feature_names
from recsys.errors import InputError
from recsys.feature_store import offline
from recsys.feature_store.store import Origin, Store
from recsys.models.base.knowledge import Knowledge

_AT_ONCE = 1000  # ids asked for in one call


def materialize(dataset: Dataset, store: Store) -> dict[str, float]:
    """Make a dataset's features those of a store, offline and online; returns how many were compared.

    Until all is there and every value was read back, the store says that it is not ready.

    Raises:
        InputError: if the dataset has no moments, or the online store has another value or none for somebody.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    origin = Origin(dataset.digest, str(dataset.manifest["created"]))
    offline.write_histories(dataset, store)
    store.define(origin, ready=False)
    store.materialize()
    compared = compare(dataset, store)
    store.define(origin, ready=True)
    offline.remove_others(store, dataset.digest)
    return compared


def compare(dataset: Dataset, store: Store) -> dict[str, float]:
    """Every value of the online store against the dataset's, to the bit; raises InputError where one differs."""
    compared = {}
    for side, ids in (("user", dataset.user_ids), ("item", dataset.item_ids)):
        n = len(ids)
        statistics = getattr(dataset.features, side)
        expected = np.stack([statistics.average, statistics.std, statistics.count, statistics.unique], axis=1)
        found, rows = 0, 0
        for start in range(0, n, _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            table = read(store, side, some)
            rows += int((~np.isnan(table).any(axis=1)).sum())
            found += int((table == expected[start : start + _AT_ONCE]).all(axis=1).sum())
        if rows != n or found != n:
            raise InputError(
                f"{store.folder}: the online store has features of {rows:,} of {n:,} {side}s, and {found:,} are the "
                "dataset's; run materialize again, into an empty database if it goes on"
            )
        compared[f"{side}s"] = float(n)
    return compared


def read(store: Store, side: str, ids: Ids) -> Floats:
    """The newest features of ids: shape (n, 4), NaN where the online store has none."""
    rows = [{f"{side}_id": name} for name in ids.tolist()]
    with store.explained():
        found = store.feast.get_online_features(store.references(side), rows).to_dict()
    columns = [[np.nan if value is None else value for value in found[name]] for name in feature_names(side)]
    return np.array(columns, np.float64).T


@dataclass(frozen=True, eq=False)
class OnlineFeatures(Features):
    """A version's features, with those of pairs read from the online store."""

    knowledge: Knowledge
    store: Store

    def table(self, users: Codes, items: Codes) -> Floats:
        """As of Features, in the codes of the knowledge; raises InputError where the store has nothing of somebody."""
        sides = ("user", self.knowledge.user_ids, users), ("item", self.knowledge.item_ids, items)
        return np.concatenate([self._side(*side) for side in sides], axis=1)

    def _side(self, side: str, ids: Ids, codes: Codes) -> Floats:
        distinct, back = np.unique(codes, return_inverse=True)
        starts = range(0, len(distinct), _AT_ONCE)
        tables = [read(self.store, side, ids[distinct[start : start + _AT_ONCE]]) for start in starts]
        table = np.concatenate(tables) if tables else np.empty((0, len(feature_names(side))))
        if (missing := np.isnan(table).any(axis=1)).any():
            someone = ids[distinct[missing][0]]
            raise InputError(f"the online store has no features of {side} {someone!r}; run materialize")
        return np.asarray(table[back])
