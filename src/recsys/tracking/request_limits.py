"""How often and how long MLflow asks a tracking server that does not answer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT


@contextmanager
def request_limits(retries: int, seconds: int | None = None) -> Iterator[None]:
    """Have requests repeated so many times only, in this process, where MLflow would try for minutes.

    Args:
        retries: the requests after the first.
        seconds: how long one may take; None: as before.
    """
    with ExitStack() as stack:
        stack.enter_context(_set(MLFLOW_HTTP_REQUEST_MAX_RETRIES, retries))
        if seconds is not None:
            stack.enter_context(_set(MLFLOW_HTTP_REQUEST_TIMEOUT, seconds))
        yield


@contextmanager
def _set(variable: Any, value: int) -> Iterator[None]:
    before = variable.get_raw()
    variable.set(value)
    try:
        yield
    finally:
        if before is None:
            variable.unset()
        else:
            variable.set(before)
