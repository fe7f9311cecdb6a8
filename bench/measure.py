"""What all benchmarks share: fresh processes, peak memory, and a table that says where it was measured."""

import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measurement:
    """Seconds of the work alone, imports left out, and the peak memory of its process in GB (10^9 bytes)."""

    seconds: float
    peak_gb: float
    result: Any


def measure(work: Callable[..., Any], *arguments: object) -> Measurement:
    """Run `work` in a process of its own; it returns a function, so that its imports are not timed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, work, arguments).result()


def fastest(work: Callable[..., Any], *arguments: object, rounds: int = 3) -> Measurement:
    """The fastest of several fresh processes."""
    return min((measure(work, *arguments) for _ in range(rounds)), key=lambda done: done.seconds)


def heading(title: str, packages: Sequence[str]) -> str:
    """A title and where, when and with what the figures below it were measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    return (
        f"### {title}\n\n{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip()}, {_processor()}, "
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {versions}\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def interval_of_median(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """An interval that holds the median of what values are drawn from in at least that share of cases.

    Its ends are two of the values, as far from either end of their order, whatever the distribution is: the number of
    values below the median is binomial with one half. Of too few values, the least and the most.
    """
    ordered, left, below = sorted(values), 0, 0.0
    while (below := below + math.comb(len(ordered), left) / 2 ** len(ordered)) <= (1 - share) / 2:
        left += 1
    at = max(0, left - 1)
    return ordered[at], ordered[-1 - at]


def _run(work: Callable[..., Any], arguments: tuple[object, ...]) -> Measurement:
    timed = work(*arguments)
    start = time.perf_counter()
    result = timed()
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return Measurement(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, result)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
