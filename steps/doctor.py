"""Doctor: is everything here that the pipeline needs, and what to type where it is not."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from recsys.diagnostics import checks
from recsys.diagnostics.checks import Finding
from recsys.errors import InputError
from steps import PROJECT
from steps.support.entrypoint import data_folder, object_store_address, run_step, tracking_uri
from steps.support.parameters import DoctorParameters
from steps.support.runs import made_by, name_own_run

_CONNECT_SECONDS = 5
_ASK = "ask the server's administrator for the role that may write (docs/server.md, Login)"
_START = "start the database that the server is over (make up, or its MySQL)"
_LOOK = "look at the server's log (make logs, or where make server runs)"


def doctor(parameters: DoctorParameters) -> None:
    """Check one thing after the other and print a line for each.

    Raises:
        InputError: if anything is wrong, after all lines.
    """
    folder, uri = Path(parameters.folder), tracking_uri(Path(parameters.folder))
    wrong = 0
    for name, check in _checks(folder, uri):
        started = time.monotonic()
        try:
            found = check()
        except Exception as error:  # a check that fails is a finding, whatever it raises
            text = " ".join(f"{type(error).__name__}: {_masked(str(error), uri)}".split())
            found = Finding(text[:300], _remedy(text))
        wrong += not found.is_ok
        seconds = time.monotonic() - started
        print(f"{'ok   ' if found.is_ok else 'wrong'} {name}: {found.text} ({seconds:.1f} s)", flush=True)
        if not found.is_ok:
            print(f"      type: {found.remedy}", flush=True)
    if wrong:
        raise InputError(f"{wrong} of the checks above found something wrong")


def _remedy(text: str) -> str:
    if "permission denied" in text.lower():
        return _ASK
    return _START if " 503 " in text else _LOOK


Check = tuple[str, Callable[[], Finding]]


def _checks(folder: Path, uri: str) -> Iterator[Check]:
    yield "python", lambda: checks.check_python(sys.version_info[:2], PROJECT / "requirements.txt")
    yield "torch", _torch
    from recsys.tracking.request_limits import request_limits  # imports MLflow

    with request_limits(1, _CONNECT_SECONDS):
        yield from _server_checks(uri)
    yield "studies", lambda: _studies(folder)
    if object_store_address():
        yield "object store", _object_store
    folders = {"data": data_folder(), "temporary files": Path(tempfile.gettempdir()), "this folder": folder}
    yield "disk", lambda: checks.check_disk(folders)
    yield "git", lambda: checks.check_git(made_by())


def _server_checks(uri: str) -> Iterator[Check]:
    found: list[Finding] = []

    def reach() -> Finding:
        found.append(_reach(uri))
        return found[0]

    yield "tracking", reach
    if found and _is_fatal(found[0], uri):
        return
    if uri.startswith("http"):
        yield "host header", lambda: checks.check_hosts(uri.rstrip("/"), _credentials())
        yield "clock", lambda: checks.check_clock(uri.rstrip("/"), datetime.now(UTC))
    yield from _writing_checks()


def _writing_checks() -> Iterator[Check]:
    from recsys.diagnostics.probes import Trace

    opened: list[Trace] = []

    def database() -> Finding:
        opened.append(Trace())
        opened[0].write_metric()
        return Finding("a run was written and read")

    def artifacts() -> Finding:
        opened[0].write_artifact()
        return Finding("a file was written, read and deleted")

    def registry() -> Finding:
        opened[0].write_registry()
        return Finding("a model, a version and an alias were written, read and deleted")

    def left() -> Finding:
        from recsys.tracking.left_running import end_left_running

        ended = end_left_running()
        if not ended:
            return Finding("no run of this machine is RUNNING without its process")
        return Finding(f"{len(ended)} were left RUNNING by processes that are gone; they are KILLED now")

    yield "database", database
    if not opened:
        return
    name_own_run("doctor")
    try:
        yield "runs", left
        yield "artifacts", artifacts
        yield "registry", registry
    finally:
        opened[0].close()


def _torch() -> Finding:
    from recsys.diagnostics.probes import torch_device

    return Finding(torch_device())


def _reach(uri: str) -> Finding:
    from recsys.diagnostics.probes import mlflow_version
    from recsys.tracking import connection

    if uri.startswith("http"):
        found = checks.check_server(uri.rstrip("/"), mlflow_version(), _credentials())
        if _is_fatal(found, uri):
            return found
    else:
        found = Finding(f"{_masked(uri, uri)}, by MLflow {mlflow_version()}")
    try:
        connection.connect(uri)
    except InputError as error:
        return Finding(str(error), "correct MLFLOW_TRACKING_URI, or start what it names")
    return found


def _is_fatal(found: Finding, uri: str) -> bool:
    """Whether nothing more can be asked: all but a server of another version."""
    return not found.is_ok and not found.text.startswith(f"{uri.rstrip('/')} is MLflow")


def _studies(folder: Path) -> Finding:
    given = os.environ.get("RECSYS_STUDY_STORAGE")
    if not given:
        there = folder / "studies.db"
        if not os.access(there if there.exists() else folder, os.W_OK):
            return Finding(
                f"{there} cannot be written", "call from a folder that is yours, or set RECSYS_STUDY_STORAGE"
            )
        return Finding(f"sqlite, {there}: for one machine")
    parts = urlsplit(given)
    try:
        if parts.hostname:  # briefly: the driver would wait longer
            socket.create_connection((parts.hostname, parts.port or 3306), _CONNECT_SECONDS).close()
        from recsys.diagnostics.probes import study_storage

        study_storage(given)
    except Exception as error:  # the driver's, SQLAlchemy's and Optuna's own
        text = " ".join(f"{type(error).__name__}: {_masked(str(error), given)}".split())
        return Finding(f"{_masked(given, given)}: {text[:200]}", "start the database, or correct RECSYS_STUDY_STORAGE")
    return Finding(f"{_masked(given, given)}: a study was made and deleted")


def _object_store() -> Finding:
    from steps.support import datasets

    try:
        store = datasets.object_store()
        assert store
        store.check()
        return Finding(f"{store.uri}: an object was written, read and deleted; datasets there: {len(store.times())}")
    except InputError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding(text, remedy or "correct RECSYS_DATA")


def _credentials() -> tuple[str, str] | None:
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
    return (name, password) if name and password else None


def _masked(text: str, uri: str) -> str:
    password = urlsplit(uri).password
    return text.replace(password, "***") if password else text


if __name__ == "__main__":
    run_step("doctor", doctor, connected=False)
