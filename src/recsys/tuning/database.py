"""The database of studies: reached, and made where it is not there."""

import socket
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy
from sqlalchemy import exc

from recsys.errors import InputError
from recsys.runtime.retry import retry_on
from recsys.tuning.database_errors import error_number, is_transient
from recsys.tuning.database_url import is_sqlite, location, port

CONNECT_SECONDS = 4
_ANSWER_SECONDS = 60
_GREETING_SECONDS = 3
_CONNECTIONS = 4  # of one worker: its trial, its heartbeat, its lock, and one to spare
_NO_DATABASE = {1044, 1049}

_retry_connect = retry_on(is_transient, CONNECT_SECONDS)


def reach(url: str) -> None:
    """Connect to the server's port, and make the database that the URL names if the server lacks it; not for sqlite.

    Raises:
        InputError: if the database is not there and the account may not make it; OSError if nothing answers.
    """
    parts = urlsplit(url)
    at = parts.hostname or "", port(parts)
    _retry_connect(lambda: socket.create_connection(at, CONNECT_SECONDS).close())()
    _make_database(url)


def engine_options(url: str) -> dict[str, Any]:
    """How SQLAlchemy connects: few connections, each tried before use, none waited for without end."""
    options: dict[str, Any] = {"pool_size": _CONNECTIONS, "max_overflow": _CONNECTIONS, "pool_pre_ping": True}
    if is_sqlite(url):
        return options | {"connect_args": {"timeout": _ANSWER_SECONDS}}
    if url.startswith(("mysql+pymysql", "mariadb+pymysql")):
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": _ANSWER_SECONDS, "write_timeout": _ANSWER_SECONDS}
        return options | {"connect_args": waits}
    return options


def _make_database(url: str) -> None:
    """Make the database that the URL names if the server lacks it and the account may; MySQL and MariaDB."""
    made = sqlalchemy.engine.make_url(url)
    if not url.startswith(("mysql", "mariadb")) or _connects(made):
        return
    name = str(made.database).replace("`", "``")
    engine = sqlalchemy.create_engine(made.set(database=""), **engine_options(url))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"create database if not exists `{name}` character set utf8mb4".replace("%", "%%")
            )
    except exc.OperationalError as error:
        if error_number(error) not in (1044, 1227):
            raise
        raise InputError(
            f"parameter 'storage': {location(url)} has no database {made.database!r} that the account "
            f"{made.username!r} may use, and the account may not make it; have it made: CREATE DATABASE `{name}`; "
            f"GRANT ALL ON `{name}`.* TO '{made.username}'@'%'"
        ) from None
    finally:
        engine.dispose()


def _connects(url: sqlalchemy.engine.URL) -> bool:
    options = engine_options(url.render_as_string(hide_password=False))
    if "connect_args" in options:  # something may listen there that never says a word
        options["connect_args"] |= {"read_timeout": _GREETING_SECONDS, "write_timeout": _GREETING_SECONDS}
    engine = sqlalchemy.create_engine(url, **options)
    try:
        _retry_connect(lambda: engine.connect().close())()
    except exc.OperationalError as error:
        if error_number(error) not in _NO_DATABASE:
            raise
        return False
    finally:
        engine.dispose()
    return True
