"""How much memory there is to use, a clear refusal where that is too little, and the making of many objects."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import InputError

_CGROUPS = Path("/sys/fs/cgroup")  # control groups, version 2: what a container, a service or a session may use
_OWN_CGROUP = Path("/proc/self/cgroup")
_SYSTEM = Path("/proc/meminfo")


def available() -> int:
    """Bytes that this process can still take; half of all memory where the system does not say."""
    return max(0, min([_free(), *_left_in_cgroups()]))


def check(needed: float, purpose: str, remedy: str) -> None:
    """Refuse, with the sizes, what would not fit; raises InputError."""
    if needed > (left := available()):
        sizes = f"{needed / 1e9:.1f} GB of memory, {left / 1e9:.1f} are available"
        raise InputError(f"{purpose} needs about {sizes}; {remedy}")


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many small objects without cycles, among which Python would look for cycles again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _free() -> int:
    try:
        lines = dict(line.split(":") for line in _SYSTEM.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _left_in_cgroups() -> list[int]:
    """What is left, in bytes, of each limit on this process's control group and on those around it.

    In a container the own group is usually the root of what can be seen; elsewhere the root has no limit, and one may
    be set on any group on the way to the own one.
    """
    left = []
    group = _CGROUPS / _own_cgroup().lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_CGROUPS):
            break
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            left.append(int(limit) - int(used))
        except (OSError, ValueError):  # no such group here, or the limit is "max": none
            continue
    return left


def _own_cgroup() -> str:
    """The path of this process's control group, from the root of those that it sees; "/" where it is not told."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return "/"
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
