"""The history of the features, and joining each rating with what was known just before it."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.arrays import Array, Floats, Ids
from recsys.data.dataset import Dataset
from recsys.data.features import FEATURES, Features, Statistics, learn_history
from recsys.data.parquet_store import SIDES, feature_names
from recsys.errors import InputError
from recsys.feature_store.store import MOMENT, Store
from recsys.runtime.files import write_atomically

_LATEST = datetime(2200, 1, 1).timestamp()
_MOST_PAIRS = 4_000_000  # rows of Feast's intermediate table: every moment asked for by every one known, of each id
_NOBODY = np.datetime64(0, "us")  # of the row of each id before its first moment


def write_histories(dataset: Dataset, store: Store) -> None:
    """Write the files that the views read.

    Raises:
        InputError: if the ratings have no timestamps, or they are no seconds.
    """
    rows = dataset.train
    if rows.timestamps is None:
        raise InputError(
            f"dataset {dataset.digest[:12]}: features at a moment need timestamps, and it has none; pass "
            "-P timestamp_column=… to prepare"
        )
    lowest, highest = float(rows.timestamps.min()), float(rows.timestamps.max())
    if not 1 <= lowest <= highest <= _LATEST:
        raise InputError(
            f"dataset {dataset.digest[:12]}: timestamps in seconds since 1970, before the year 2200, are needed, got "
            f"{lowest:g} to {highest:g}"
        )
    for side, codes, ids in (("user", rows.users, dataset.user_ids), ("item", rows.items, dataset.item_ids)):
        final: Statistics = getattr(dataset.features, side)
        history = learn_history(codes, rows.ratings, rows.timestamps, final)
        table = {f"{side}_id": pa.array(ids[history.codes], pa.string()), MOMENT: _after(history.moments)}
        table |= dict(zip(feature_names(side), _columns(history.statistics), strict=True))
        with write_atomically(store.offline_file(side, dataset.digest)) as path:
            pq.write_table(pa.table(table), path)


def _columns(values: Statistics) -> tuple[Array, Array, Array, Array]:
    return values.average, values.std, values.count.astype(np.int64), values.unique.astype(np.int64)


def _after(moments: Floats) -> Array:
    """Just after these moments: a rating is joined with what stands before it, not with itself."""
    known = np.isfinite(moments)
    after = np.full(len(moments), _NOBODY)
    after[known] = np.rint(moments[known] * 1e6).astype(np.int64).astype("datetime64[us]") + np.timedelta64(1, "us")
    return after


class PointInTime:
    """The features of a store as they were at given moments, and as they are now; for the training of one dataset."""

    def __init__(self, store: Store, dataset: Dataset) -> None:
        """Take a store; raises InputError if its views were made of another dataset."""
        self.store, self._dataset = store, dataset
        self.origin = store.origin()
        if self.origin.dataset != dataset.digest:
            raise InputError(
                f"{store.folder}: its features are of dataset {self.origin.dataset[:12]}, the training is of "
                f"{dataset.digest[:12]}; run materialize -P dataset={dataset.digest[:12]}"
            )

    def table(self, user_ids: Ids, item_ids: Ids, moments: Floats) -> Floats:
        """What was known of each pair just before its moment: shape (n, 8), columns as in recsys.data.features."""
        sides = [self._side(side, ids, moments) for side, ids in zip(SIDES, (user_ids, item_ids), strict=True)]
        table = np.concatenate(sides, axis=1)
        assert table.shape[1] == len(FEATURES)
        return table

    def latest(self, user_ids: Ids, item_ids: Ids) -> Features:
        """What is known in the end, in the codes of these ids."""
        known = self._dataset.features
        return Features(
            known.user.of(_places(self._dataset.user_ids, user_ids)),
            known.item.of(_places(self._dataset.item_ids, item_ids)),
        )

    def _side(self, side: str, ids: Ids, moments: Floats) -> Floats:
        """Feast's join drops what it has nothing for, and makes one of two rows of one id at one moment.

        So each id and moment is asked for once, and the answers are given back to the rows; that none is lost is
        counted. It also holds every moment asked for beside every one known of an id: few ids are asked for at a time.
        """
        key = f"{side}_id"
        asked = pd.DataFrame({key: ids, MOMENT: np.rint(moments * 1e6).astype(np.int64).astype("datetime64[us]")})
        asked[MOMENT] = asked[MOMENT].dt.tz_localize("UTC")
        distinct = asked.drop_duplicates(ignore_index=True)
        found = [self._ask(side, some) for some in _portions(distinct, key)]
        answers = pd.concat(found, ignore_index=True)
        rows = asked.merge(answers, on=[key, MOMENT], how="left", validate="many_to_one", indicator=True)
        lost = int((rows["_merge"] != "both").sum())
        if len(answers) != len(distinct) or lost:
            raise InputError(
                f"{self.store.folder}: {len(distinct):,} moments of {side}s were asked for, {len(answers):,} were "
                f"answered, and {lost:,} of {len(ids):,} ratings have no features; run materialize again"
            )
        table: Floats = rows[list(feature_names(side))].to_numpy(np.float64)
        if np.isnan(table).any():
            raise InputError(f"{self.store.folder}: features of {side}s are missing; run materialize again")
        return table

    def _ask(self, side: str, asked: pd.DataFrame) -> pd.DataFrame:
        job = self.store.feast.get_historical_features(asked, self.store.references(side))
        answered: pd.DataFrame = job.to_df()
        answered[MOMENT] = pd.to_datetime(answered[MOMENT], utc=True).astype(asked[MOMENT].dtype)
        return answered[[f"{side}_id", MOMENT, *feature_names(side)]]


def _portions(asked: pd.DataFrame, key: str) -> Iterator[pd.DataFrame]:
    """The rows, all of one id together, as many ids at a time as Feast's join holds in memory."""
    counts = asked[key].value_counts()
    portion = (counts.to_numpy(np.int64) ** 2).cumsum() // _MOST_PAIRS
    of_id = pd.Series(portion, index=counts.index)
    for _, some in asked.groupby(asked[key].map(of_id), sort=True):
        yield some.reset_index(drop=True)


def _places(known: Ids, ids: Ids) -> Array:
    place = {name: code for code, name in enumerate(known.tolist())}
    return np.fromiter((place[name] for name in ids.tolist()), np.int64, len(ids))


def remove_others(store: Store, dataset: str) -> None:
    """Remove the files of datasets that the views no longer read."""
    kept = {store.offline_file(side, dataset).name for side in SIDES}
    for side in SIDES:
        for path in Path(store.folder).glob(f"{side}_features-*.parquet"):
            if path.name not in kept:
                path.unlink()
