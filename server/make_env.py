"""Make .env from .env.example, with a random secret behind every variable marked random; keep one that is there.

Makes the certificate that MySQL shows to its clients, too, and the authority by which they know it.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
_NAMES = "subjectAltName=DNS:mysql,DNS:localhost,IP:127.0.0.1\n"  # by which clients call MySQL
_NEW_KEY = ("-newkey", "rsa:3072", "-nodes", "-sha256")
_DAYS = ("-days", "3650")


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


def make_certificates(folder: Path) -> None:
    """Make ca.pem, server.pem and server-key.pem in a folder that is for its owner alone; keep those there are.

    The key of the authority is thrown away: nobody can make another certificate that clients would believe.
    """
    if folder.exists():
        return
    openssl = shutil.which("openssl")
    if openssl is None:
        sys.exit("error: openssl is needed, for the certificate of MySQL: apt-get install openssl")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".certificates") as temporary:
        made, names = Path(temporary) / "made", Path(temporary) / "names"
        made.mkdir(mode=0o700)
        names.write_text(_NAMES, encoding="utf-8")
        authority, request = ("-CA", "made/ca.pem", "-CAkey", "ca-key"), ("-out", "request", "-subj", "/CN=mysql")
        signed = ("-extfile", "names", "-set_serial", str(secrets.randbits(64)), "-out", "made/server.pem")
        for line in (
            ("req", "-x509", *_NEW_KEY, *_DAYS, "-subj", "/CN=recsys", "-keyout", "ca-key", "-out", "made/ca.pem"),
            ("req", *_NEW_KEY, *request, "-keyout", "made/server-key.pem"),
            ("x509", "-req", "-in", "request", *authority, *_DAYS, "-sha256", *signed),
        ):
            done = subprocess.run([openssl, *line], cwd=temporary, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"error: openssl {line[0]}: {' '.join(done.stderr.split())[-300:]}")
        # The folder keeps others out; in its container MySQL is another user than the owner.
        (made / "server-key.pem").chmod(0o644)
        made.rename(folder)


def missing_variables(text: str) -> list[str]:
    """The random variables of the example that are absent or empty in a .env."""
    given = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    example = filled((PROJECT / ".env.example").read_text(encoding="utf-8"))
    wanted = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    made = [line.split("=")[0] for line in example.splitlines() if line not in wanted]
    return [name for name in made if not given.get(name)]


if __name__ == "__main__":
    main()
    make_certificates(PROJECT / "certificates")
