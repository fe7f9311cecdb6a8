"""The tiers of the tests, and what holds them: a unit test works in its own process, whatever the machine's speed.

Time says nothing on a machine that others use, so that no test fails for its seconds. What makes a test slow everywhere
is what it starts: another Python, a server, a browser. An audit hook sees that, and a test without the mark of a tier
above the units fails by it.
"""

import multiprocessing.process
import os
import sys
from pathlib import Path
from typing import Any

import pytest

MARKS_OF_FIXTURES = {
    "store": "store",
    "module_store": "store",
    "registry": "store",
    "mariadb": "service",
    "chromium": "browser",
}
ABOVE_UNIT = ("simulation", "store", "process", "service", "browser", "e2e")
"""Marks of the tests that `make test-unit` leaves out."""
TOOLS = {"git", "uname", "lscpu", "ldconfig", "gcc", "cc"}
"""Programs of the system, done in milliseconds, that the library and its packages ask for facts."""

_started: list[str] = []


def mark(item: pytest.Item) -> None:
    """Give a test the marks that follow from the fixtures it uses, by way of others too."""
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in MARKS_OF_FIXTURES:
            item.add_marker(MARKS_OF_FIXTURES[fixture])


def is_unit(item: pytest.Item) -> bool:
    """Whether a test is in the lowest tier."""
    return not any(item.get_closest_marker(name) for name in ABOVE_UNIT)


def watch() -> None:
    """Begin to note what this process starts; an audit hook stays until the process ends."""
    sys.addaudithook(_note)
    start = multiprocessing.process.BaseProcess.start

    def noted(self: multiprocessing.process.BaseProcess) -> None:
        _started.append("a process of multiprocessing")  # which raises no audit event
        start(self)

    multiprocessing.process.BaseProcess.start = noted  # type: ignore[method-assign]


def begin() -> None:
    """Forget what was started before."""
    _started.clear()


def started() -> list[str]:
    """What was started since."""
    return list(_started)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        program = arguments[0] or arguments[1][0]
        if Path(os.fsdecode(program)).name not in TOOLS:
            _started.append(f"the program {os.fsdecode(program)}")
    elif event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec"):
        _started.append(event)
