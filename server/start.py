"""Start the tracking server: check what it is given, wait for the database, become `mlflow server`.

The one definition of the server's command line: docker-compose.yml, `make server` and the tests start this file.
Passwords come by environment, since a command line is seen by everybody on the machine. MLflow makes the tables of an
empty database by itself and refuses a database of another version of itself (see upgrade.py).
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

DEFAULTS = {
    "MLFLOW_HOST": "127.0.0.1",
    "MLFLOW_PORT": "5000",
    "MLFLOW_WORKERS": "4",
    # `mlflow` is the server's name in the network of docker-compose.yml.
    "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost:*,127.0.0.1:*,mlflow:5000",
    "MLFLOW_ARTIFACTS_DESTINATION": "mlartifacts",
    "RECSYS_SERVER_ACCOUNTS": "accounts.db",
    # Ours are no pickles: whoever uploads one can run no code on the machines that load models.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for language models; it keeps workers of its own
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
PROJECT = Path(__file__).resolve().parents[1]
LOGIN = "RECSYS_SERVER_LOGIN"
ACCOUNTS = "RECSYS_SERVER_ACCOUNTS"
SHORTEST_PASSWORD = 12
_WAIT_SECONDS = 90
_SILENT_PORTS = {"mysql": 3306, "mariadb": 3306, "postgresql": 5432}


class WrongSettings(ValueError):
    """A setting that the server cannot start with; the message names it and the remedy."""


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the server: what was given and the defaults, empty values left out.

    Raises:
        WrongSettings: naming the variable, what it has to be, and never its value if that may hold a password.
    """
    settings = DEFAULTS | {name: value for name, value in given.items() if value}
    uri = settings.get("MLFLOW_BACKEND_STORE_URI", "")
    parts = urlsplit(uri)
    if not uri or "://" not in uri:
        raise WrongSettings(
            "MLFLOW_BACKEND_STORE_URI: the database's URL is needed, such as "
            "mysql+pymysql://mlflow:password@127.0.0.1:3306/mlflow"
        )
    if parts.scheme.startswith("mysql"):
        if parts.scheme != "mysql+pymysql":
            raise WrongSettings(f"MLFLOW_BACKEND_STORE_URI: mysql+pymysql:// is needed, got {parts.scheme}://")
        if not parts.hostname or not parts.path.strip("/"):
            raise WrongSettings(
                "MLFLOW_BACKEND_STORE_URI: a host and a database's name are needed after mysql+pymysql://"
            )
    for name in ("MLFLOW_PORT", "MLFLOW_WORKERS"):
        if not settings[name].isdigit() or int(settings[name]) < 1:
            raise WrongSettings(f"{name}: a whole number from 1 is needed, got {settings[name]!r}")
    if settings.get(LOGIN, "false") not in ("true", "false"):
        raise WrongSettings(f"{LOGIN}: true or false is needed, got {settings[LOGIN]!r}")
    if settings.get(LOGIN) == "true":
        if len(settings.get("MLFLOW_AUTH_ADMIN_PASSWORD", "")) < SHORTEST_PASSWORD:
            raise WrongSettings(
                f"MLFLOW_AUTH_ADMIN_PASSWORD: a password of at least {SHORTEST_PASSWORD} characters is needed for the "
                "administrator (user admin)"
            )
        if not settings.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
            raise WrongSettings("MLFLOW_FLASK_SERVER_SECRET_KEY: a random text is needed, the same at every start")
    return settings


def command(settings: Mapping[str, str]) -> list[str]:
    """What is executed; the rest of the settings stays in the environment."""
    line = [
        *(sys.executable, "-m", "mlflow", "server", "--serve-artifacts"),
        *("--host", settings["MLFLOW_HOST"], "--port", settings["MLFLOW_PORT"]),
        *("--workers", settings["MLFLOW_WORKERS"], "--allowed-hosts", settings["MLFLOW_SERVER_ALLOWED_HOSTS"]),
        *("--app-name", "recsys-login" if settings.get(LOGIN) == "true" else "recsys-open"),  # server/guard.py
    ]
    if origins := settings.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"):
        line += ["--cors-allowed-origins", origins]
    return line


def guarded(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings with the path on which MLflow finds the applications of server/guard.py."""
    paths = [str(PROJECT), str(PROJECT / "server" / "plugin"), *filter(None, [settings.get("PYTHONPATH")])]
    return dict(settings) | {"PYTHONPATH": os.pathsep.join(paths)}


def make_accounts(settings: Mapping[str, str]) -> None:
    """Make the administrator's account where there is none, before several workers try.

    Raises:
        WrongSettings: with MLflow's last line, if it refuses.
    """
    make = "from mlflow.server.auth import bootstrap_admin_user; bootstrap_admin_user()"
    done = subprocess.run([sys.executable, "-c", make], env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise WrongSettings(f"{ACCOUNTS}: the administrator's account cannot be made ({said})")


def wait_for_database(uri: str, seconds: float = _WAIT_SECONDS) -> None:
    """Wait until something answers on the database's port.

    Raises:
        WrongSettings: if nothing does in time.
    """
    parts = urlsplit(uri)
    default = _SILENT_PORTS.get(parts.scheme.split("+")[0])
    if not parts.hostname or default is None:
        return
    port = parts.port or default
    limit = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((parts.hostname, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise WrongSettings(
                    f"MLFLOW_BACKEND_STORE_URI: no database answers at {parts.hostname}:{port} after {seconds:.0f} s "
                    f"({error}); start it or correct the URL"
                ) from None
        time.sleep(1)


def login_settings(accounts: str, port: str) -> str:
    """The path of a file by which MLflow keeps the accounts in a sqlite file.

    Not in the tracking database: MLflow names two foreign keys of these tables alike, which MySQL refuses.
    """
    Path(accounts).parent.mkdir(parents=True, exist_ok=True)
    # It holds the hashes of passwords. What sqlite puts beside it gets the same mode.
    os.close(os.open(accounts, os.O_WRONLY | os.O_CREAT, 0o600))
    Path(accounts).chmod(0o600)
    path = Path(tempfile.gettempdir()) / f"recsys-login-{os.getuid()}-{port}.ini"
    path.unlink(missing_ok=True)
    lines = [
        "[mlflow]",
        "default_permission = READ",  # everybody with an account sees all and changes only what is theirs
        f"database_uri = sqlite:///{str(Path(accounts).absolute()).replace('%', '%%')}",
        "admin_username = admin",
        # A password is checked once in this time, not at every request: that costs 0.1 s, and a step makes hundreds.
        "auth_cache_ttl_seconds = 30",
    ]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return str(path)


def make_bucket(destination: str, endpoint: str | None) -> None:
    """Make the bucket of an S3 destination if there is none, and see that it can be written.

    Raises:
        WrongSettings: if the store does not answer or refuses.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = urlsplit(destination).netloc
    try:
        client = boto3.client("s3", endpoint_url=endpoint)
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            client.create_bucket(Bucket=bucket)
            _say(f"made the bucket {bucket}")
        key = f"{urlsplit(destination).path.strip('/')}/.probe-{secrets.token_hex(8)}".lstrip("/")
        client.put_object(Bucket=bucket, Key=key, Body=b"")  # that the bucket is there says nothing of the account
        client.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        raise WrongSettings(
            f"MLFLOW_ARTIFACTS_DESTINATION: the bucket {bucket!r} cannot be used ({error}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL"
        ) from None


def main() -> NoReturn:
    """Become the server, or say in one line why not."""
    try:
        settings = guarded(checked(os.environ))
        uri, destination = settings["MLFLOW_BACKEND_STORE_URI"], settings["MLFLOW_ARTIFACTS_DESTINATION"]
        wait_for_database(uri)
        if destination.startswith("s3://"):
            make_bucket(destination, settings.get("MLFLOW_S3_ENDPOINT_URL"))
        elif "://" not in destination:
            settings["MLFLOW_ARTIFACTS_DESTINATION"] = str(Path(destination).absolute())
            Path(destination).mkdir(parents=True, exist_ok=True)
        if settings.get(LOGIN) == "true":
            settings["MLFLOW_AUTH_CONFIG_PATH"] = login_settings(settings[ACCOUNTS], settings["MLFLOW_PORT"])
            make_accounts(settings)
    except (WrongSettings, OSError) as error:
        sys.exit(f"error: server: {error}")
    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    _say(f"tracking in {where}, artifacts in {settings['MLFLOW_ARTIFACTS_DESTINATION']}")
    os.execve(sys.executable, command(settings), settings)


def _say(text: str) -> None:
    print(f"server: {text}", flush=True)


if __name__ == "__main__":
    main()
