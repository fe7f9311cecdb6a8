"""The process of PyTorch's agent (agent.py), from the side of the step: it imports from the start, and is told later.

So it is best begun before what else a step does: by the time that the rows are written, ranks can begin at once.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import recsys
from recsys.training.launch import agent

_END_SECONDS = 5.0
_MARK = "RECSYS_AGENT"  # in the environment of the agent and of its ranks
_SOURCE = Path(recsys.__file__).resolve().parents[1]  # where the agent imports recsys from


class AgentProcess:
    """The agent of so many ranks on this machine, of one family. As a context it is gone at the end.

    Args:
        environment: of the agent and the ranks, less what they do not need.
    """

    def __init__(self, family: str, processes: int, environment: Mapping[str, str]) -> None:
        # Ranks do not use the tracking server and the studies' database, nor their passwords.
        secret = ("MLFLOW_", "RECSYS_")
        kept = {name: value for name, value in environment.items() if not name.startswith(secret)}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        kept["OMP_NUM_THREADS"] = kept["NUMBA_NUM_THREADS"] = str(max(1, cores // processes))
        kept["PYTHONPATH"] = os.pathsep.join([str(_SOURCE), *filter(None, [kept.get("PYTHONPATH")])])
        self._mark = secrets.token_hex(16)
        self._process = subprocess.Popen(
            [sys.executable, "-m", agent.__name__, family],
            env=kept | {_MARK: self._mark},
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the ranks through this process only
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(0)

    def begin(self, folder: Path, log: Path, environment: Mapping[str, str], launch: Mapping[str, Any]) -> None:
        """Have the ranks train the job in `folder`; the arguments are those of the agent's line."""
        line = {"folder": str(folder), "log": str(log), "environment": dict(environment), "launch": dict(launch)}
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended; how, is found when it is waited for
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative where a signal ended it; None if it is still there after so long."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def stop(self, patience: float) -> None:
        """Tell the ranks to stop, wait so many seconds for it, and then end the agent by force."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        for seconds, then in ((patience, self._process.terminate), (_END_SECONDS, self._process.kill)):
            if self.wait(seconds) is None:
                then()
        self._process.wait()

    def kill_rank(self, pid: int) -> None:
        """Kill one of the ranks, unless its number is another process's by now."""
        with suppress(OSError):
            started_with = Path(f"/proc/{pid}/environ")
            if not Path("/proc/self").exists() or self._mark.encode() in started_with.read_bytes():
                os.kill(pid, signal.SIGKILL)
