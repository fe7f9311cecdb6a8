"""What decides about the last digits of a computation, beside its input: the processor, threads and versions."""

import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

_PROCESSORS = Path("/proc/cpuinfo")
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def describe_machine(environment: Mapping[str, str]) -> dict[str, str]:
    """Kind of processor, the instructions that NumPy uses of it, and the threads that this process may have."""
    used = np.show_config(mode="dicts") or {}
    capability = used.get("SIMD Extensions", {})
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "capability": " ".join([*capability.get("baseline", ()), *capability.get("found", ())]) or "unknown",
        "threads": str(_threads()),
        "thread limits": ", ".join(f"{name}={environment[name]}" for name in _LIMITS if name in environment) or "none",
    }


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those packages that are here."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differing(here: Mapping[str, str], then: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What is not alike, by name, here and then; "-" where one side does not say."""
    names = [*then, *(name for name in here if name not in then)]
    return {name: pair for name in names if (pair := (here.get(name, "-"), then.get(name, "-")))[0] != pair[1]}


def _processor() -> str:
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
