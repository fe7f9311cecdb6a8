"""How often and how long MLflow asks a tracking server that does not answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_RETRIES, _SECONDS = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@contextmanager
def request_limits(retries: int, seconds: int | None = None) -> Iterator[None]:
    """Have requests repeated so many times only, in this process, where MLflow would try for minutes.

    Args:
        retries: the requests after the first.
        seconds: how long one may take; None: as before.
    """
    wanted = {_RETRIES: retries} | ({_SECONDS: seconds} if seconds is not None else {})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: str(value) for name, value in wanted.items()})
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
