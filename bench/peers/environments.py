"""The Python environments that the contestants run in, made on first use and kept in the user's cache folder."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from bench.measure import PROJECT

CACHE = user_cache_path("recsys", appauthor=False) / "peers"
_BUILD_SECONDS = 1200
_VENV = ("-m", "venv")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class UnavailableError(Exception):
    """A contestant cannot take part; says why in a line."""


@dataclass(frozen=True)
class Environment:
    """An interpreter and the variables that its processes get beside this process's."""

    python: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def all_variables(self) -> dict[str, str]:
        """What a process in it sees; PYTHONPATH is the environment's own."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return kept | dict(self.variables)


OURS = Environment(sys.executable, {"PYTHONPATH": str(PROJECT / "src")})


def environment(pins: Sequence[str], cache: Path = CACHE) -> Environment:
    """An environment with exactly these packages and what they need; made now if it is not there.

    Raises:
        UnavailableError: with pip's last line, if it cannot be made.
    """
    content = "\n".join([sys.version, *pins])
    folder = cache / f"{pins[0].partition('==')[0]}-{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not ready.exists():  # a folder without it was left by a build that was stopped
            shutil.rmtree(folder, ignore_errors=True)
            print(f"installing {', '.join(pins)} in {folder}", file=sys.stderr)
            for command in ([sys.executable, *_VENV, str(folder)], [str(python), *_PIP, *pins]):
                _build(command)
            ready.touch()
    return Environment(str(python))


def _build(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"not installed: {error}") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UnavailableError(f"not installed: {said[-1] if said else f'exit status {done.returncode}'}")
