"""Keeps workers on one socket: starts them, starts another in place of one that died, and ends them."""

import ipaddress
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from recsys.errors import InputError
from recsys.serving.connections import Counts, open_counts
from recsys.serving.settings import ServingSettings

_POLL_SECONDS = 0.1
_STOP_SECONDS = 15
_LONGEST_PAUSE = 5.0  # seconds before another start of a worker that dies at once
_BACKLOG = 4096
# The C library gives memory back to the system as soon as a request has let go of its arrays, and the system zeroes the
# next request's page by page: for 62,000 items that takes longer than the sums. So a worker keeps some.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(16 << 20)}
_log = logging.getLogger("recsys.serving")


def open_socket(host: str, port: int, settings: ServingSettings) -> socket.socket:
    """Listen on a port; raises InputError if it is taken, or open to other machines without a key."""
    if not _is_loopback(host) and not (settings.read_keys and settings.feedback_keys):
        raise InputError(
            f"parameter 'host': {host!r} can be reached from other machines, and there are no keys for reading and for "
            "feedback; name a file of keys by -P keys=…, or pass host=127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(
            f"parameter 'port': {host}:{port} cannot be listened on ({error}); pass another port"
        ) from None
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Worker:
    def __init__(self, process: "subprocess.Popen[bytes]", place: int) -> None:
        self.process = process
        self.place = place  # among the workers
        self.started = time.monotonic()


class Supervisor:
    """The workers of one server."""

    def __init__(
        self, listening: socket.socket, settings: ServingSettings, workers: int, environment: Mapping[str, str]
    ) -> None:
        """Take a socket that listens.

        Args:
            environment: of the workers; has the package on PYTHONPATH.
        """
        self._socket = listening
        self._settings = settings
        self._metrics = Path(settings.folder) / "metrics"
        self._environment = {
            **environment,
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics),
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
            **_MALLOC,
        }
        self._size = workers
        self._counts_file = open_counts(workers)
        self._counts = Counts(self._counts_file)
        self._workers: list[_Worker] = []
        self._pause = 0.0

    def run(self, stop: threading.Event) -> None:
        """Keep the workers until told to stop, then let them finish what they are at."""
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir(parents=True)
        try:
            self._workers = [self._start(place) for place in range(self._size)]
            while not stop.wait(_POLL_SECONDS):
                self._workers = [self._replaced(worker) for worker in self._workers]
        finally:
            self._end()

    def _start(self, place: int) -> _Worker:
        handle = self._socket.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "recsys.serving.worker"],
            stdin=subprocess.PIPE,
            pass_fds=[handle, self._counts_file],
            env=self._environment,
            start_new_session=True,  # a Ctrl-C reaches the supervisor only, which lets them finish
        )
        assert process.stdin
        counts = {"counts": self._counts_file, "worker": place}
        given = {"settings": self._settings.model_dump(), "socket": handle, **counts}
        process.stdin.write(json.dumps(given).encode() + b"\n")
        process.stdin.flush()
        return _Worker(process, place)

    def _replaced(self, worker: _Worker) -> _Worker:
        if worker.process.poll() is None:
            return worker
        _log.warning("worker %d ended with %d; another is started", worker.process.pid, worker.process.returncode)
        mark_process_dead(worker.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        self._counts.reset(worker.place)
        lived = time.monotonic() - worker.started
        self._pause = 0.0 if lived > _LONGEST_PAUSE else min(_LONGEST_PAUSE, 2 * self._pause + 0.1)
        time.sleep(self._pause)
        return self._start(worker.place)

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        limit = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._socket.close()
        os.close(self._counts_file)
