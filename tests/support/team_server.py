"""The server of docker-compose.yml as a process: the file's own command, environment and health check, no container."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from server.make_env import filled
from tests.support.services import DatabaseServer, free_port
from tests.support.waiting import wait

PROJECT = Path(__file__).resolve().parents[2]
_ENCRYPTED = "?ssl_ca=/certificates/ca.pem"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<rule>:?[-?])(?P<other>[^}]*))?\}")


def secrets() -> dict[str, str]:
    """What `make up` writes into a new .env."""
    text = filled((PROJECT / ".env.example").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables replaced, by the rules of the Compose specification."""

    def replace(found: re.Match[str]) -> str:
        value, rule, other = variables.get(found["name"]), found["rule"] or "", found["other"] or ""
        if value is None or (not value and rule.startswith(":")):
            if rule.endswith("?"):
                raise KeyError(f"{found['name']}: {other}")
            return other
        return value

    content: dict[str, Any] = yaml.safe_load(
        _VARIABLE.sub(replace, (PROJECT / "docker-compose.yml").read_text(encoding="utf-8"))
    )
    return content


def make_databases(database: DatabaseServer, variables: Mapping[str, str]) -> None:
    """Run what the mysql container runs at its first start, on a server whose root has no password."""
    host, port = database.address.rpartition("@")[2].split(":")
    database.execute("drop database if exists mlflow", "drop database if exists optuna")
    environment = dict(os.environ) | dict(variables) | {"MYSQL_HOST": host, "MYSQL_TCP_PORT": port}
    environment["MYSQL_ROOT_PASSWORD"] = ""
    script = PROJECT / "server" / "database.sh"
    subprocess.run(["bash", str(script)], env=environment, check=True, capture_output=True, text=True)


class TeamServer:
    """The service `mlflow` or `mlflow-auth` on a port of its own."""

    def __init__(
        self, database: DatabaseServer, folder: Path, variables: Mapping[str, str], service: str = "mlflow"
    ) -> None:
        """Take the service from the compose file and put this machine's addresses in place of the containers'."""
        self.database = database
        self.log = folder / "server.log"
        self.port = free_port()
        self.variables = dict(variables)
        self._service = compose(variables)["services"][service]
        self.environment = {key: str(value) for key, value in self._service["environment"].items()}
        host = database.address.rpartition("@")[2]
        uri = self.environment["MLFLOW_BACKEND_STORE_URI"].replace("mysql:3306", host)
        assert uri.endswith(_ENCRYPTED)
        # A server that the caller names may not be encrypted.
        encrypted = f"?ssl_ca={database.authority}" if database.authority else ""
        uri = uri.removesuffix(_ENCRYPTED) + encrypted
        self.environment |= {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": str(self.port)}
        self.environment["RECSYS_SERVER_ACCOUNTS"] = str(folder / "accounts.db")
        if self.environment["MLFLOW_ARTIFACTS_DESTINATION"] == "/artifacts":
            self.environment["MLFLOW_ARTIFACTS_DESTINATION"] = str(folder / "artifacts")
        self.studies = f"mysql+pymysql://optuna:{variables['OPTUNA_DB_PASSWORD']}@{host}/optuna{encrypted}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What MLFLOW_TRACKING_URI is set to."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until its own health check passes."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(self._service["command"]),
                cwd=PROJECT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait(self._has_started, lambda: f"the server's start ({self._said()})")

    def _has_started(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"the server does not start: {self._said()}")
        return self._listens() and self.is_healthy()

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def is_healthy(self) -> bool:
        """What the service's health check says."""
        kind, *check = self._service["healthcheck"]["test"]
        assert kind == "CMD"
        command = self._command(check)
        done = subprocess.run(command, cwd=PROJECT, env=self._environment(), check=False, capture_output=True)
        return done.returncode == 0

    def _listens(self) -> bool:
        """Cheaper than the health check, which starts a Python."""
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def processes(self) -> list[psutil.Process]:
        """The server and its workers."""
        if self.process is None or self.process.poll() is not None:
            return []
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it: SIGTERM as `docker compose stop`, SIGKILL as a machine that goes down."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
        if self.process:
            self.process.wait()

    def _command(self, command: list[str]) -> list[str]:
        assert command[0] == "python"
        return [sys.executable, *command[1:]]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RECSYS_"))}
        return kept | self.environment


def read_all(folder: Path) -> bytes:
    """The content of every file in a folder."""
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@contextmanager
def team_server(
    database: DatabaseServer, folder: Path, service: str = "mlflow", **variables: str
) -> Iterator[TeamServer]:
    """The server over new databases, for a while."""
    settings = secrets() | {"SERVER_WORKERS": "1"} | variables
    make_databases(database, settings)
    server = TeamServer(database, folder, settings, service)
    try:
        server.start()
        yield server
    finally:
        server.stop()
