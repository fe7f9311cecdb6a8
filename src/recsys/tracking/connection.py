"""The connection to MLflow: a tracking server or a database."""

import importlib
import json
import logging
import socket
import sqlite3
import tempfile
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import requests
from filelock import FileLock
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.db.utils import _safe_initialize_tables, create_sqlalchemy_engine
from mlflow.tracking import MlflowClient
from platformdirs import user_cache_path
from sqlalchemy import event

from recsys.errors import InputError
from recsys.runtime.files import write_atomically
from recsys.runtime.interruption import uninterrupted

_CONNECT_SECONDS = 5


_MAKING_SECONDS = 120


@uninterrupted()
def connect(uri: str) -> None:
    """Send everything from here on to a tracking server or database.

    Raises:
        InputError: within seconds if nothing answers there. MLflow itself would try for minutes.
    """
    parts = urlsplit(uri)
    shown = uri.replace(f":{parts.password}@", ":***@") if parts.password else uri
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what is raised, with its stack
    try:
        _try(uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        with _making(uri):
            _make_tables(uri)
            MlflowClient()
    except Exception as error:
        # Sockets, requests, SQLAlchemy, the database's driver and MLflow each raise their own here.
        reason = (str(error).splitlines() or [""])[0]
        for secret in {parts.password, unquote(parts.password)} if parts.password else ():
            reason = reason.replace(secret, "***")
        remedy = "start it, correct the URI, or unset MLFLOW_TRACKING_URI to use the local mlflow.db"
        if "database is locked" in reason:
            remedy = "another process is writing there: type it again once that has ended"
        raise InputError(
            f"MLFLOW_TRACKING_URI: a tracking server or database that answers is needed, but {shown} cannot be used "
            f"({type(error).__name__}: {reason[:200]}); {remedy}"
        ) from None


def get_ready(uri: str) -> None:
    """Import what MLflow imports once it connects to a database, for a process that forks others that do."""
    if urlsplit(uri).scheme.split("+")[0] in DATABASE_ENGINES:
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def _making(uri: str) -> AbstractContextManager[object]:
    """Lets one process at a time make the tables of a new sqlite file: two of MLflow's migrations at once fail."""
    if urlsplit(uri).scheme != "sqlite":
        return nullcontext()
    return FileLock(f"{_sqlite_file(uri)}.lock", timeout=_MAKING_SECONDS)


def _make_tables(uri: str) -> None:
    """Give a sqlite file that is empty its tables in one transaction. MLflow would wait for the disk a thousand times.

    Who fills the file meanwhile without our lock, as `mlflow run` does, keeps what is there.
    """
    file = _sqlite_file(uri)
    if urlsplit(uri).scheme != "sqlite" or "?" in uri or (file.exists() and file.stat().st_size):
        return
    statements = _table_statements()
    with closing(sqlite3.connect(file, timeout=_MAKING_SECONDS, isolation_level=None)) as target:
        target.execute("begin immediate")
        if target.execute("select 1 from sqlite_master").fetchone() is None:
            for statement in statements:
                target.execute(statement)
        target.execute("commit")


def _table_statements() -> list[str]:
    """What makes MLflow's tables in sqlite, as this version of it does by all the migrations there ever were.

    These take most of a second: the statements that come of them are kept in the user's cache folder.
    """
    kept = user_cache_path("recsys") / "mlflow" / f"tables-{mlflow.__version__}.json"
    with suppress(OSError, ValueError):
        found: list[str] = json.loads(kept.read_bytes())
        return found
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.db"
        engine = create_sqlalchemy_engine(f"sqlite:///{made}")  # type: ignore[no-untyped-call]
        event.listen(engine, "connect", _do_not_wait)
        _safe_initialize_tables(engine)
        engine.dispose()
        with closing(sqlite3.connect(made)) as source:
            statements = [line for line in source.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(kept) as partial:
            partial.write_text(json.dumps(statements))
    return statements


def _do_not_wait(connection: Any, _record: object) -> None:
    connection.execute("pragma synchronous=off")


def _sqlite_file(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def _try(uri: str) -> None:
    """Ask once, briefly, where MLflow would ask again and again."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=_CONNECT_SECONDS)
        if answer.status_code == requests.codes.not_found or answer.status_code >= requests.codes.server_error:
            raise ConnectionError(f"/health answers {answer.status_code}, which an MLflow server's does not")
        return
    if parts.scheme.split("+")[0] not in DATABASE_ENGINES:
        raise ValueError(f"MLflow knows http, https, {' and '.join(DATABASE_ENGINES)}")
    if parts.scheme == "sqlite":
        _sqlite_file(uri).parent.mkdir(parents=True, exist_ok=True)
    elif parts.hostname:
        default = 5432 if parts.scheme.startswith("postgres") else 3306
        socket.create_connection((parts.hostname, parts.port or default), _CONNECT_SECONDS).close()
    create_sqlalchemy_engine(uri).connect().close()  # type: ignore[no-untyped-call]
