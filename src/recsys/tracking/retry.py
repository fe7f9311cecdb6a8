"""Calls of MLflow that are made again, for half a minute, where the error may pass by itself."""

import requests
from mlflow.exceptions import MlflowException

from recsys.runtime.retry import retry_on

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


retry_mlflow = retry_on(_may_pass, _SECONDS)
"""A decorator for one call of MLflow that bears repetition; a stop does not cut an attempt off."""
