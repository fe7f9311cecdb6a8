"""The URL of a database: whether it is one, where it points, and how it is shown without its password."""

import re
from urllib.parse import SplitResult, unquote, urlsplit

from recsys.errors import InputError

_HIDDEN = "***"
_SHAPE = re.compile(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?://.*", re.DOTALL)
_SECRET_OPTION = re.compile(r"(?i)([?&](?:password|passwd|passphrase|pwd)=)([^&#]+)")
_REACHES_OUT = re.compile(r"(?i)[?&](read_default_file|read_default_group|init_command|local_infile)=")
_ASKED = (
    "parameter 'storage': an SQLAlchemy URL is needed, such as mysql+pymysql://user:password@host:3306/optuna or "
    "sqlite:////folder/studies.db"
)


def masked(url: str) -> str:
    """The URL as it may be shown."""
    # From the first colon behind the scheme to the last @: a password may hold either sign.
    scheme, mark, rest = url.rpartition("://") if _SHAPE.fullmatch(url) is None else url.partition("://")
    account, at, host = rest.rpartition("@")
    user, colon, password = account.partition(":")
    shown = f"{user}:{_HIDDEN}@{host}" if at and colon and password else rest
    return _SECRET_OPTION.sub(rf"\g<1>{_HIDDEN}", f"{scheme}{mark}{shown}")


def has_password(url: str) -> bool:
    """Whether there is anything to hide that is not hidden yet."""
    return masked(url) != url


def scrubbed(text: str, url: str) -> str:
    """A text, from a driver or a library, with whatever of the URL is secret taken out."""
    account = url.partition("://")[2].rpartition("@")[0]
    found = {account.partition(":")[2], *(match[2] for match in _SECRET_OPTION.finditer(url))}
    for secret in sorted({spelt for word in found for spelt in (word, unquote(word)) if spelt}, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def check_url(url: str) -> None:
    """Refuse what cannot be a database's URL, without naming a password; raises InputError."""
    if not _SHAPE.fullmatch(url):
        raise InputError(f"{_ASKED}, got {masked(url)!r}")
    check_options(url, "parameter 'storage'")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError(f"{_ASKED}; the host or the port of {masked(url)!r} is none") from None
    if parts.scheme.startswith("sqlite"):
        if not sqlite_path(url):
            raise InputError(f"parameter 'storage': sqlite needs a file, as in sqlite:///studies.db, got {url!r}")
    elif not parts.hostname or not parts.path.strip("/") or port == 0:
        raise InputError(f"{_ASKED}; a host and the name of a database are missing in {masked(url)!r}")


def check_options(url: str, name: str) -> None:
    """Refuse options by which the driver reads other files, and prints their lines; raises InputError.

    Args:
        name: what gave the URL, for the message.
    """
    if found := _REACHES_OUT.search(unquote(url)):
        raise InputError(
            f"{name}: a URL without the option {found[1]!r} is needed, by which the driver reads other files or runs "
            f"other commands, got {masked(url)!r}; leave it out"
        )


def is_sqlite(url: str) -> bool:
    """Whether the database is a file of this machine."""
    return url.startswith("sqlite")


def sqlite_path(url: str) -> str:
    """The file behind an sqlite URL; empty for one in memory."""
    path = re.sub(r"^sqlite(\+\w+)?://", "", url).partition("?")[0].removeprefix("/")
    return "" if path in ("", ":memory:") else path


def location(url: str) -> str:
    """Where the database is, for messages: host and port, or the file."""
    if is_sqlite(url):
        return sqlite_path(url)
    parts = urlsplit(url)
    return f"{parts.hostname}:{port(parts)}"


def port(parts: SplitResult) -> int:
    """The port, or the usual one of the kind of database."""
    return parts.port or (5432 if parts.scheme.startswith("postgres") else 3306)
