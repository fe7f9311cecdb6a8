"""Processes of this machine that search together, each a `tune` of its own with one worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

from recsys.settings import to_text
from steps import PROJECT

_STOP_SECONDS = 10.0
_AGAIN_SECONDS = 3.0


class WorkerPool:
    """So many workers, and the process that becomes them (worker_host.py), which begins to import with the block.

    Nothing of it is left when the block is.
    """

    def __init__(self, workers: int, family: str) -> None:
        """Say how many, and of which family the search is."""
        self._workers = workers
        self._family = family
        share = str(max(1, len(os.sched_getaffinity(0)) // workers))
        # Of PyTorch and NumPy, and of scikit-learn: each worker would take all cores otherwise.
        self._threads = {"OMP_NUM_THREADS": share, "NUMBA_NUM_THREADS": share, "LOKY_MAX_CPU_COUNT": share}
        self._asked = False

    def __enter__(self) -> Self:
        self._told, self._descriptor = os.pipe()
        # A session of its own: Ctrl-C reaches it and the workers through this process only, and once.
        self._host = subprocess.Popen(
            [sys.executable, "-m", "steps.support.worker_host", self._family],
            cwd=PROJECT,
            env=self._environment({}),
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[self._descriptor],
        )
        os.close(self._descriptor)
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()
        assert self._host.stdin is not None
        self._host.stdin.close()
        os.close(self._told)

    @contextmanager
    def working(self, parameters: Mapping[str, object], environment: Mapping[str, str]) -> Iterator[None]:
        """The workers work until they end by themselves; none is left when the block is.

        Args:
            parameters: of the step `tune`.
            environment: added to this process's; secrets stand here, since everybody can read a command line.
        """
        job = {
            "workers": self._workers,
            "arguments": [f"--{name}={to_text(value)}" for name, value in parameters.items()],
            "environment": self._environment(environment),
            "ends": self._descriptor,
        }
        try:
            assert self._host.stdin is not None
            with suppress(OSError):  # it has ended; `ends` says how
                self._host.stdin.write(json.dumps(job).encode() + b"\n")
                self._host.stdin.flush()
            yield
        finally:
            self._end()

    def at_work(self) -> bool:
        """Whether any worker is left, or is to come."""
        return self._host.poll() is None

    def wait(self, seconds: float) -> None:
        """Wait until no worker is left, for so long at most."""
        with suppress(subprocess.TimeoutExpired):
            self._host.wait(seconds)

    def ask_to_stop(self) -> None:
        """Have every worker end after its running trial; once is enough."""
        if not self._asked:
            self._asked = True
            self._signal(signal.SIGINT)

    def statuses(self) -> list[int]:
        """The exit statuses of the workers that have ended, negative where a signal ended one; to be asked once."""
        told = os.read(self._told, 1 << 16)
        found: list[int] = json.loads(told) if told else [self._host.returncode]
        return found

    def _end(self) -> None:
        limit = time.monotonic() + _STOP_SECONDS
        asked = 0.0
        while self.at_work() and time.monotonic() < limit:
            if time.monotonic() - asked > _AGAIN_SECONDS:  # the first is heard as a request, the second is not
                self._signal(signal.SIGTERM)
                asked = time.monotonic()
            self.wait(0.05)
        self._signal(signal.SIGKILL)
        self._host.wait()

    def _environment(self, added: Mapping[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        return kept | self._threads | dict(added)

    def _signal(self, number: signal.Signals) -> None:
        if self.at_work():
            os.killpg(self._host.pid, number)
