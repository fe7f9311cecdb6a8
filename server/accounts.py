"""Write the file of the server's accounts to standard output, or read it from standard input: `dump` or `load`.

It is RECSYS_SERVER_ACCOUNTS, a sqlite file that the server makes where there is a login. No file is dumped as nothing.
"""

import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path


def dump(accounts: Path) -> bytes:
    """The accounts as they are at one moment."""
    if not accounts.is_file():
        return b""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "accounts.db"
        with closing(sqlite3.connect(accounts)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy.read_bytes()


def load(accounts: Path, content: bytes) -> None:
    """Replace the accounts by those of a dump, if there were any in it."""
    if content:
        accounts.parent.mkdir(parents=True, exist_ok=True)
        new = accounts.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(accounts)


if __name__ == "__main__":
    file = Path(os.environ.get("RECSYS_SERVER_ACCOUNTS") or "accounts.db")
    match sys.argv[1:]:
        case ["dump"]:
            sys.stdout.buffer.write(dump(file))
        case ["load"]:
            load(file, sys.stdin.buffer.read())
        case _:
            sys.exit(__doc__)
