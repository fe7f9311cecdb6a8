"""Processes of this machine that search together, each a `tune` of its own with one worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Self

from recsys.settings import to_text
from steps import PROJECT

_STOP_SECONDS = 10.0
_AGAIN_SECONDS = 3.0


class WorkerPool:
    """So many workers; none is left when the block is."""

    def __init__(self, workers: int, parameters: Mapping[str, object], environment: Mapping[str, str]) -> None:
        """Say what to start.

        Args:
            parameters: of the step `tune`.
            environment: added to this process's; secrets stand here, since everybody can read a command line.
        """
        self._command = [sys.executable, "-m", "steps.tune"]
        self._command += [f"--{name}={to_text(value)}" for name, value in parameters.items()]
        share = str(max(1, len(os.sched_getaffinity(0)) // workers))
        kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        # Of PyTorch and NumPy, and of scikit-learn: each worker would take all cores otherwise.
        self._environment = kept | {"OMP_NUM_THREADS": share, "LOKY_MAX_CPU_COUNT": share} | dict(environment)
        self._workers = workers
        self._asked = False
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(self._workers):
            # Sessions of their own: Ctrl-C reaches them through this process only, and once.
            self._processes.append(
                subprocess.Popen(
                    self._command,
                    cwd=PROJECT,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        return self

    def __exit__(self, *_error: object) -> None:
        limit = time.monotonic() + _STOP_SECONDS
        asked = 0.0
        while self.at_work() and time.monotonic() < limit:
            if time.monotonic() - asked > _AGAIN_SECONDS:  # the first is heard as a request, the second is not
                self._signal(signal.SIGTERM)
                asked = time.monotonic()
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def at_work(self) -> bool:
        """Whether any worker is left."""
        return any(process.poll() is None for process in self._processes)

    def ask_to_stop(self) -> None:
        """Have every worker end after its running trial; once is enough."""
        if not self._asked:
            self._asked = True
            self._signal(signal.SIGINT)

    def ends(self) -> str:
        """How the workers ended, for a message."""
        return ", ".join(
            f"killed by {signal.Signals(-code).name}" if (code := process.returncode) < 0 else f"status {code}"
            for process in self._processes
        )

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
