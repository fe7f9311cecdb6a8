"""A process that becomes workers: it imports what a search needs while its starter is busy, and then forks.

    python -m steps.support.worker_host FAMILY

One line of standard input says what the workers are (worker_pool.py). Without threads, without a connection and without
a random number drawn there is nothing that two of them could share by mistake; they do share the memory of what was
imported. How they ended goes as JSON to the file descriptor that the line names.
"""

import gc
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
from typing import Any

from steps.support.entrypoint import LAUNCHER, run_step

# Those that a worker would import one by one, once it needs them.
_NEEDED = (
    "recsys.tracking.studies",
    "recsys.training.trainer",
    "recsys.tuning.search",
    "sklearn.linear_model",
    "steps.tune",
)
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def main(family: str) -> None:
    """Import, wait for the line, fork, and wait for the workers."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: ends this process without a word
    gc.disable()  # imports make a million objects that stay
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
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(job, str(os.getpid()))) for _ in range(job["workers"])]
    for worker in workers:
        worker.start()
    # They are for the workers: the starter signals all of this process's group.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    starter = sys.stdin.fileno()
    while left := [worker.sentinel for worker in workers if worker.exitcode is None]:
        if starter in multiprocessing.connection.wait([starter, *left]):
            return  # its other end is closed: the starter is gone. The workers see that this process is, and stop
    os.write(job["ends"], json.dumps([worker.exitcode for worker in workers]).encode())


def _work(job: dict[str, Any], host: str) -> None:
    from steps.tune import tune

    os.close(job["ends"])
    os.environ.clear()
    os.environ.update(job["environment"] | {LAUNCHER: host})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    run_step("tune", tune, job["arguments"])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # at once: nothing is to be taken down, and workers that are left are not waited for
