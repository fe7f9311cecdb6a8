"""A feature store in a folder: two entities, two views, Parquet files offline, and a database online.

    registry.db                     what Feast knows of entities and views
    user_features-<digest>.parquet  the statistics of each user after each moment at which they rated, and of nobody
    item_features-<digest>.parquet  likewise
    online.db                       the newest of them, unless they are kept in MySQL

The views' columns are those of the tables that prepare writes (recsys.data.parquet_store), and their numbers too.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.errors import FeatureViewNotFoundException
from feast.types import Float64, Int64

from recsys.data.parquet_store import SIDES, feature_names
from recsys.errors import InputError

MOMENT = "event_timestamp"
_PROJECT = "recsys"
_KINDS = {"average_rating": Float64, "rating_std": Float64}  # the others count
_DATASET, _PREPARED, _STATE = "dataset", "prepared", "state"
_READY = "ready"


@dataclass(frozen=True)
class Origin:
    """What the features of a view were made of."""

    dataset: str
    """Its digest."""
    prepared: str
    """When that was prepared, as 2026-11-29T12:00:00+00:00."""


class Store:
    """A feature store, open. Nothing is read or written before it is asked for."""

    def __init__(self, folder: Path, database: str = "") -> None:
        """Take its folder, and the URL of the team's MySQL; empty: a file in the folder.

        Raises:
            InputError: if the URL is not one of MySQL.
        """
        self.folder = folder
        self._folder = folder.absolute()
        self._online = _online(database, self._folder)
        config = RepoConfig(
            project=_PROJECT,
            provider="local",
            registry={"path": str(self._folder / "registry.db"), "cache_ttl_seconds": 0},
            offline_store={"type": "file"},
            online_store=self._online,
            entity_key_serialization_version=3,
            repo_path=self._folder,
        )
        self._config = config
        self.feast = FeatureStore(config=config)

    def define(self, origin: Origin, *, ready: bool) -> None:
        """Tell Feast of entities and views; `ready` once the online store has all values."""
        entities = {side: Entity(name=side, join_keys=[f"{side}_id"], value_type=ValueType.STRING) for side in SIDES}
        tags = {_DATASET: origin.dataset, _PREPARED: origin.prepared, _STATE: _READY if ready else "under way"}
        views = [
            FeatureView(
                name=view_name(side),
                entities=[entities[side]],
                schema=[Field(name=name, dtype=_KINDS.get(name, Int64)) for name in feature_names(side)],
                source=FileSource(path=str(self.offline_file(side, origin.dataset)), timestamp_field=MOMENT),
                ttl=timedelta(0),  # what is known of somebody does not expire
                tags=tags,
            )
            for side in SIDES
        ]
        with self.explained():
            self.feast.apply([*entities.values(), *views])

    def offline_file(self, side: str, dataset: str) -> Path:
        """Where a side's history is."""
        return self._folder / f"{view_name(side)}-{dataset[:12]}.parquet"

    def origin(self) -> Origin:
        """What the views were made of; raises InputError where there are none, or their making did not end."""
        if not (self._folder / "registry.db").is_file():
            raise InputError(f"{self.folder}: there is no feature store; run the entry point materialize")
        found = set()
        for side in SIDES:
            try:
                tags = self.feast.get_feature_view(view_name(side)).tags
            except FeatureViewNotFoundException:
                raise InputError(f"{self.folder}: it has no view {view_name(side)!r}; run materialize") from None
            if tags.get(_STATE) != _READY:
                raise InputError(f"{self.folder}: materialize did not end; run it again")
            found.add(Origin(tags[_DATASET], tags[_PREPARED]))
        if len(found) > 1:
            raise InputError(f"{self.folder}: its two views are of different datasets; run materialize again")
        return found.pop()

    def check_not_older(self, version: str, origin: Origin) -> None:
        """Refuse views that were made before what a version learnt from; raises InputError with both dates."""
        mine = self.origin()
        if datetime.fromisoformat(mine.prepared) < datetime.fromisoformat(origin.prepared):
            raise InputError(
                f"{self.folder}: its features are of {mine.prepared}, {version} learnt from those of "
                f"{origin.prepared}; run materialize -P dataset={origin.dataset[:12]}, or that of a newer dataset"
            )

    def materialize(self) -> None:
        """Bring the newest values of the views to the online store."""
        with redirect_stdout(StringIO()), self.explained():  # it tells of every view
            self.feast.materialize(datetime(1969, 12, 31, tzinfo=UTC), datetime(2201, 1, 1, tzinfo=UTC))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an error of the online store into an InputError, and connect anew the next time."""
        try:
            yield
        except sqlite3.Error as error:  # such as a database that materialize is writing to
            raise InputError(f"{self._online['path']}: {error}; try again, or run materialize") from None
        except pymysql.MySQLError as error:
            self.feast = FeatureStore(config=self._config)  # the old one keeps its broken connection
            place = f"{self._online['host']}:{self._online['port']}/{self._online['database']}"
            raise InputError(
                f"RECSYS_FEATURE_DATABASE: {place}: {' '.join(str(error).split())[:200]}; start it, or correct the URL"
            ) from None

    def references(self, side: str) -> list[str]:
        """The columns of a side's view, as Feast names them."""
        return [f"{view_name(side)}:{name}" for name in feature_names(side)]


def view_name(side: str) -> str:
    """The view of a side."""
    return f"{side}_features"


def _online(url: str, folder: Path) -> dict[str, Any]:
    if not url:
        return {"type": "sqlite", "path": str(folder / "online.db")}
    parts = urlsplit(url)
    if parts.scheme not in ("mysql+pymysql", "mariadb+pymysql") or not parts.hostname or len(parts.path) < 2:
        raise InputError(
            "RECSYS_FEATURE_DATABASE: a URL such as mysql+pymysql://user:password@host:3306/features is needed"
        )
    if not parts.username or not parts.password:
        raise InputError("RECSYS_FEATURE_DATABASE: an account with a password is needed, user:password@ before host")
    return {
        "type": "mysql",
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": parts.path.strip("/"),
    }
