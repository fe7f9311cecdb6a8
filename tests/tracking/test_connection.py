"""The connection to MLflow, and the tables of a new sqlite file."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from recsys.errors import InputError
from recsys.tracking import connection
from tests.support.pipeline import new_store


@pytest.fixture(autouse=True)
def _reset(monkeypatch, tmp_path_factory):
    """No tables in the cache, and MLflow's addresses as they were."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    yield
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def schema(file: Path) -> dict[str, list[str]]:
    """The words of each statement: MLflow's migrations write constraints, and what is in them, in any order."""
    with closing(sqlite3.connect(file)) as database:
        found = database.execute("select type, name, sql from sqlite_master").fetchall()
    return {f"{kind} {name}": sorted(re.findall(r"\w+", sql or "")) for kind, name, sql in found}


@pytest.mark.store
def test_a_new_file_is_what_mlflow_makes_and_nothing_lies_beside_it(tmp_path, tmp_path_factory):
    theirs = new_store(tmp_path / "store", tmp_path_factory.getbasetemp()).folder / "mlflow.db"
    ours = tmp_path / "ours" / "mlflow.db"
    connection.connect(f"sqlite:///{ours}")
    assert schema(ours) == schema(theirs)
    assert {path.name for path in ours.parent.iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    made = ours.stat().st_ino
    connection.connect(f"sqlite:///{ours}")
    assert ours.stat().st_ino == made


def test_tables_are_made_once_and_kept(tmp_path, monkeypatch):
    first, second, third = (f"sqlite:///{tmp_path / name}" for name in ("first.db", "second.db", "third.db"))
    connection.connect(first)
    with monkeypatch.context() as patch:
        patch.delattr(connection, "_safe_initialize_tables")
        connection.connect(second)
        (kept,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("tables-*.json")
        kept.write_text(kept.read_text()[:100])  # by another hand: ours is written as a whole
        with pytest.raises(InputError):
            connection.connect(third)
    connection.connect(third)
    assert schema(tmp_path / "first.db") == schema(tmp_path / "second.db") == schema(tmp_path / "third.db")


def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    connection.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "table runs" in schema(tmp_path / "mlflow.db")


def test_a_file_whose_tables_could_not_be_made_is_as_before(tmp_path, monkeypatch):
    def fail(engine):
        with engine.connect() as made:
            made.exec_driver_sql("create table half (a)")
        raise OSError("the disk is full")

    monkeypatch.setattr(connection, "_safe_initialize_tables", fail)
    with pytest.raises(InputError, match="the disk is full"):
        connection.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not schema(tmp_path / "mlflow.db")
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


def test_who_fills_the_file_meanwhile_keeps_what_is_there(tmp_path, monkeypatch):
    file = tmp_path / "mlflow.db"

    def fill(engine):
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("create table theirs (a)")
            other.execute("insert into theirs values (1)")
        with engine.connect() as made:
            made.exec_driver_sql("create table ours (a)")

    monkeypatch.setattr(connection, "_safe_initialize_tables", fill)
    monkeypatch.setattr(connection, "MlflowClient", lambda: None)
    connection.connect(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select a from theirs").fetchall() == [(1,)]
    assert set(schema(file)) == {"table theirs"}


def test_only_what_makes_the_tables_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    asked = []

    def look(engine):
        with engine.connect() as one, engine.connect() as two:
            asked.extend(found.exec_driver_sql("pragma synchronous").scalar() for found in (one, two))

    monkeypatch.setattr(connection, "_safe_initialize_tables", look)
    monkeypatch.setattr(connection, "MlflowClient", lambda: None)
    connection.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert asked == [0, 0]
