"""The team's database that keeps the feedback of several servers."""

import os
from urllib.parse import urlsplit

from recsys.errors import InputError
from recsys.tuning.database_url import has_password, masked

VARIABLE = "RECSYS_FEEDBACK_DATABASE"


def find_url(given: str) -> str:
    """Its URL, of the parameter `database` or else the environment, empty where there is none; raises InputError."""
    url = given or os.environ.get(VARIABLE, "")
    where = "parameter 'database'" if given else VARIABLE
    if given and has_password(given):
        raise InputError(
            f"{where}: a password on a command line can be read by every user of the machine, got {masked(given)!r}; "
            f"pass the URL in the environment variable {VARIABLE} instead"
        )
    parts = urlsplit(url)
    if url and (parts.scheme not in ("mysql+pymysql", "mariadb+pymysql") or not parts.hostname or len(parts.path) < 2):
        raise InputError(
            f"{where}: a URL such as mysql+pymysql://user:password@host:3306/recsys is needed, got {masked(url)!r}"
        )
    return url
