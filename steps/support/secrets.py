"""A password in -P storage=…: taken out of the command line, and out of the run that `mlflow run` logged it on."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from recsys.tuning import database_url
from steps import PROJECT
from steps.support.entrypoint import STORAGE

_LAUNCHED = "MLFLOW_RUN_ID"  # there until a run is opened
_ENDING_SECONDS = 60.0
_POLL_SECONDS = 0.1


def hide_password() -> None:
    """Start anew with the URL in the environment where a command line, which all users can read, has a password."""
    arguments = sys.argv[1:]
    for position, argument in enumerate(arguments):
        key, given, value = argument.partition("=")
        if key != "--storage":
            continue
        value = value if given else "".join(arguments[position + 1 : position + 2])
        if database_url.has_password(value):
            arguments[position : position + (1 if given else 2)] = [f"--storage={database_url.masked(value)}"]
            command = [sys.executable, "-m", "steps.tune", *arguments]
            os.execve(sys.executable, command, {**os.environ, STORAGE: value})


@contextlib.contextmanager
def concealed(url: str) -> Iterator[None]:
    """Keeps the password of `url` out of the run that `mlflow run` made for this process.

    Where a run cannot be changed it is deleted. `mlflow run` fails if it cannot end its run: so the run is there again
    at the end of the block, until `mlflow run` has ended.
    """
    launched = os.environ.get(_LAUNCHED)
    if not launched or not database_url.has_password(url):
        yield
        return
    from recsys.tracking import studies

    if studies.conceal_parameter(launched, "storage", database_url.masked):
        yield
        return
    del os.environ[_LAUNCHED]
    print(
        f"note: mlflow run logged the parameter storage, with its password, on the run {launched}; that run was "
        f"deleted, and `mlflow gc` on the server removes it for good; {STORAGE} keeps a URL out of MLflow",
        flush=True,
    )
    try:
        yield
    finally:
        studies.restore(launched)
        subprocess.Popen(
            [sys.executable, "-m", "steps.support.secrets", launched, str(os.getppid())],
            cwd=PROJECT,
            env={key: value for key, value in os.environ.items() if key != STORAGE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def conceal_refused() -> None:
    """Take the password out of the launcher's run also where the step ended before it had begun."""
    with contextlib.suppress(Exception), concealed(os.environ.get(STORAGE, "")):
        pass  # the step's own message says what went wrong


def delete_after(run_id: str, launcher: int) -> None:
    """Delete a run once the process that is about to end it has ended."""
    from recsys.tracking import studies

    limit = time.monotonic() + _ENDING_SECONDS
    with contextlib.suppress(OSError):
        while time.monotonic() < limit:
            os.kill(launcher, 0)
            time.sleep(_POLL_SECONDS)
    studies.delete(run_id)


if __name__ == "__main__":
    delete_after(sys.argv[1], int(sys.argv[2]))
