"""Which process this is, so that another one can tell later whether it is still there."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STARTED = 19  # place of the time of start behind the name, in /proc/<pid>/stat


@dataclass(frozen=True)
class ProcessMark:
    """A process as it is known to others; `kernel` names one start of a machine or container, empty where none can."""

    host: str
    kernel: str
    pid: int
    started: str

    def __str__(self) -> str:
        """One word, as `parse_mark` reads it."""
        return f"{self.kernel}:{self.pid}:{self.started}"


def this_process() -> ProcessMark:
    """The mark of the process that calls."""
    return ProcessMark(platform.node() or "unknown", _kernel(), os.getpid(), start_of(os.getpid()))


def parse_mark(host: str, text: str) -> ProcessMark | None:
    """The mark that was written as a word; None where it is none."""
    kernel, _, rest = text.partition(":")
    pid, _, started = rest.partition(":")
    return ProcessMark(host, kernel, int(pid), started) if pid.isdigit() else None


def start_of(pid: int) -> str:
    """When a process started, in ticks since its machine did; empty where there is no such process, or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[_STARTED]


def _kernel() -> str:
    """The start of this machine, and the space in which numbers of processes count: a container has its own."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        space = (_PROC / "self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""
    return f"{boot}-{space}"
