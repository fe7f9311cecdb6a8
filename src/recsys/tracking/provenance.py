"""Who ran which code: the tags that let a number be traced back."""

import getpass
import subprocess
from pathlib import Path


def provenance(project: Path) -> dict[str, str]:
    """Tags `author`, `git_commit` and `git_dirty`; "unknown" where the project is no git checkout."""
    commit = _git(project, "rev-parse", "HEAD")
    changes = _git(project, "status", "--porcelain")
    return {
        "author": _git(project, "config", "user.name") or _system_user(),
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if not commit or changes is None else str(bool(changes)).lower(),
    }


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
