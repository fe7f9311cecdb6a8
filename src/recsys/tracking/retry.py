"""Patience with MLflow where it is busy: what fails in passing is tried again for half a minute, ever more slowly."""

import requests
from mlflow.exceptions import MlflowException
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

_SECONDS = 30
_FINAL_CODES = {
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "ENDPOINT_NOT_FOUND",
}


def _may_pass(error: BaseException) -> bool:
    """A deadlock, a lost connection, a first insert of a row that another process made: worth another try."""
    if isinstance(error, MlflowException):
        return error.error_code not in _FINAL_CODES
    return isinstance(error, requests.ConnectionError | requests.Timeout)


patiently = retry(
    retry=retry_if_exception(_may_pass),
    wait=wait_random_exponential(multiplier=0.05, max=3),
    stop=stop_after_delay(_SECONDS),
    reraise=True,
)
