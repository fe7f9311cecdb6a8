"""Make .env from .env.example, with a random secret behind every variable marked random; keep one that is there."""

import os
import secrets
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def filled(example: str) -> str:
    """The example with its random variables filled in."""
    lines, random = [], False
    for line in example.splitlines():
        name, given, value = line.partition("=")
        if line.startswith("#"):
            random = line.endswith("random")
        elif given and random and not value:
            line = f"{name}={secrets.token_hex(20)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the file, readable by its owner alone."""
    target = PROJECT / ".env"
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        missing = missing_variables(target.read_text(encoding="utf-8"))
        if missing:
            sys.exit(f"error: {target} lacks {', '.join(missing)}: see .env.example")
        return
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(filled((PROJECT / ".env.example").read_text(encoding="utf-8")))
    print(
        f"made {target} with random passwords, readable by you alone. Keep a copy: without it the data cannot be read"
    )


def missing_variables(text: str) -> list[str]:
    """The random variables of the example that are absent or empty in a .env."""
    given = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    example = filled((PROJECT / ".env.example").read_text(encoding="utf-8"))
    wanted = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    made = [line.split("=")[0] for line in example.splitlines() if line not in wanted]
    return [name for name in made if not given.get(name)]


if __name__ == "__main__":
    main()
