"""What goes wrong with a study's database: what may pass and is tried again, and what a person is told of the rest."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy import exc

from recsys.errors import InputError
from recsys.runtime.retry import retry_on
from recsys.tuning.database_url import is_sqlite, location, scrubbed

RETRY_SECONDS = 90.0  # a database that restarts is back by then
# MySQL's and MariaDB's: record changed, too many connections, shutting down, lock wait, deadlock; then PyMySQL's
# for a server that is away.
_TRANSIENT = {1020, 1040, 1053, 1077, 1205, 1213, 2003, 2006, 2013, 2014, 2055}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed when it is made again: a deadlock, a lock, a lost connection."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, exc.TimeoutError | exc.PendingRollbackError | ConnectionRefusedError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    return error.connection_invalidated or error_number(error) in _TRANSIENT or "database is locked" in str(error.orig)


retry_database = retry_on(is_transient, RETRY_SECONDS)
"""A decorator: the call is made again for as long as what goes wrong may pass, and a stop does not cut it off."""


def error_number(error: exc.DBAPIError) -> object:
    """The number that the database gives an error; None where it gives none."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments else None


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns what a database, its driver or SQLAlchemy raise into an InputError that keeps the password."""
    try:
        yield
    except (StorageInternalError, exc.SQLAlchemyError, OSError, ImportError) as error:
        raise InputError(f"parameter 'storage': {_explanation(url, error)}") from None


def _explanation(url: str, error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    where = location(url)
    reason = str(getattr(error, "orig", None) or error)
    if isinstance(error, socket.gaierror):
        return f"there is no host of the name in {where} ({error.strerror}); correct the URL"
    if isinstance(error, ImportError | exc.NoSuchModuleError):
        scheme = url.partition("://")[0]
        return f"no driver for {scheme} is installed; use mysql+pymysql or sqlite, or install it ({reason})"
    if isinstance(error, OSError):
        return f"no database answers at {where} ({scrubbed(reason, url)}); start it, or correct the URL"
    if isinstance(error, exc.DBAPIError):
        if error_number(error) == 1045:
            user = unquote(urlsplit(url).username or "")
            return f"{where} refuses the account {user!r}: wrong user or password; correct the URL"
        if is_sqlite(url) and "full" in reason:
            return f"the disk of {where} is full ({reason}); free some space, or keep studies elsewhere"
        if is_transient(error):
            return f"the database at {where} is away ({scrubbed(reason, url)[:200]}); run the same line again"
    if isinstance(error, optuna.exceptions.OptunaError):
        return f"{where} holds tables that Optuna {optuna.__version__} cannot use: {reason}"
    return (
        f"a database that Optuna can use is needed, but {where} answers with {type(error).__name__}: "
        f"{scrubbed(reason, url)[:200]}"
    )
