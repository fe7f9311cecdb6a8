"""A process that becomes workers: it imports what a search needs while its starter is busy, and then forks.

    python -m steps.support.worker_host FAMILY

One line of standard input says what the workers are (worker_pool.py). Without threads, without a connection and without
a random number drawn there is nothing that two of them could share by mistake; they do share the memory of what was
imported. How they ended goes as JSON to the file descriptor that the line names.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from steps.support.entrypoint import LAUNCHER, run_step

# Those that a worker would import one by one, once it needs them.
_NEEDED = (
    "recsys.tracking.studies",
    "recsys.training.trainer",
    "recsys.tuning.search",
    "registry.versions",
    "sklearn.linear_model",
    "steps.tune",
)
_POLL_SECONDS = 0.02
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def main(family: str) -> None:
    """Import, wait for the line, fork, and wait for the workers; a worker returns from here with its own work done."""
    launcher = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: ends this process without a word
    gc.disable()  # imports make a million objects that stay
    atexit.register(gc.freeze)
    from recsys.runtime import compilation
    from recsys.tracking import connection

    for name in (*_NEEDED, f"recsys.models.{family}"):
        importlib.import_module(name)
    compilation.get_ready()
    connection.get_ready(os.environ.get("MLFLOW_TRACKING_URI", ""))
    line = sys.stdin.readline()
    if not line:  # whoever was to write it is gone
        return
    job: dict[str, Any] = json.loads(line)
    gc.freeze()  # to look through them again would copy them into every worker
    gc.enable()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    host, workers = str(os.getpid()), []
    for _ in range(job["workers"]):
        worker = os.fork()
        if worker == 0:
            os.close(job["ends"])
            os.environ.clear()
            os.environ.update(job["environment"] | {LAUNCHER: host})
            _work(job["arguments"])
            return
        workers.append(worker)
    # They are for the workers: the starter signals all of this process's group.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    ends = _wait(workers, launcher)
    if ends is not None:
        os.write(job["ends"], json.dumps(ends).encode())


def _work(arguments: list[str]) -> None:
    from steps.tune import tune

    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # a device
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    run_step("tune", tune, arguments)


def _wait(workers: list[int], launcher: int) -> list[int] | None:
    """The exit statuses of the workers, negative where a signal ended one; None once the starter is gone.

    The workers see that this process is gone then, and stop.
    """
    ends: dict[int, int] = {}
    while len(ends) < len(workers):
        if os.getppid() != launcher:
            return None
        found, status = os.waitpid(-1, os.WNOHANG)
        if found:
            ends[found] = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(_POLL_SECONDS)
    return [ends[worker] for worker in workers]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        sys.exit(1)
