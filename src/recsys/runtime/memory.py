"""How much memory there is to use, and a clear refusal where that is too little."""

import os
from pathlib import Path

from recsys.errors import InputError

_GROUP = Path("/sys/fs/cgroup")  # version 2: what a container may use
_SYSTEM = Path("/proc/meminfo")


def available() -> int:
    """Bytes that this process can still take; half of all memory where the system does not say."""
    free = _free()
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free


def check(needed: float, purpose: str, remedy: str) -> None:
    """Refuse, with the sizes, what would not fit; raises InputError."""
    if needed > (left := available()):
        sizes = f"{needed / 1e9:.1f} GB of memory, {left / 1e9:.1f} are available"
        raise InputError(f"{purpose} needs about {sizes}; {remedy}")


def _free() -> int:
    try:
        lines = dict(line.split(":") for line in _SYSTEM.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
