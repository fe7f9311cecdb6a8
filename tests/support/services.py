"""The services that benchmarks and tests run against: a private MariaDB or MySQL, on this machine and for a while."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pymysql

from server.make_env import make_certificates
from tests.support.waiting import wait

GIVEN = "RECSYS_TEST_MYSQL_URL"


class DatabaseServer:
    """A server of databases, reached by PyMySQL; `process` is None where somebody else runs it."""

    def __init__(
        self,
        address: str,
        command: list[str] | None = None,
        log: Path | None = None,
        authority: Path | None = None,
    ) -> None:
        """Take an address `mysql+pymysql://user:password@host:port` and, for a private server, what starts it.

        `authority` is the certificate by which its own is known; None where connections are not encrypted.
        """
        self.authority = authority
        self.address = address.rstrip("/")
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._log = log

    @property
    def is_private(self) -> bool:
        """Whether it may be stopped, killed and restarted."""
        return self._command is not None

    def start(self) -> None:
        """Start the private server and wait until it answers."""
        assert self._command
        assert self._log
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait(self._answers, lambda: f"the database's start ({self._said()})")

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"the database does not start: {self._said()}")
        with suppress(pymysql.Error):
            self.execute("select 1")
            return True
        return False

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log else ""

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the private server: SIGTERM as at a restart, SIGKILL as at a power cut."""
        assert self.process
        self.process.send_signal(number)
        self.process.wait()

    def restart(self) -> None:
        """Stop it and start it again, on the same port."""
        self.stop()
        self.start()

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Execute statements, each in a transaction of its own; the rows of the last."""
        parts = urlsplit(self.address)
        connection = pymysql.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or "root"),
            password=unquote(parts.password or ""),
            autocommit=True,
            connect_timeout=5,
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def new_database(self, name: str) -> str:
        """Make an empty database, in place of one of that name; its URL."""
        self.execute(f"drop database if exists `{name}`", f"create database `{name}` character set utf8mb4")
        return f"{self.address}/{name}"


@contextmanager
def database_server(folder: Path) -> Iterator[DatabaseServer]:
    """The server that RECSYS_TEST_MYSQL_URL names, else a private one in `folder`.

    Raises:
        FileNotFoundError: if there is neither.
    """
    if os.environ.get(GIVEN):
        yield DatabaseServer(os.environ[GIVEN])
        return
    server = _private_server(folder)
    try:
        server.start()
        yield server
    finally:
        if server.process and server.process.poll() is None:
            server.stop()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _private_server(folder: Path) -> DatabaseServer:
    daemon = next((path for name in ("mariadbd", "mysqld") if (path := _program(name))), None)
    if daemon is None:
        raise FileNotFoundError(f"neither {GIVEN} nor mariadbd or mysqld on PATH: apt-get install mariadb-server")
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    common = ["--no-defaults", f"--datadir={data}", *(["--user=root"] if os.geteuid() == 0 else [])]
    if (install := _program("mariadb-install-db")) is not None:
        make = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    else:
        make = [daemon, *common, "--initialize-insecure"]
    subprocess.run(make, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    command = [
        *(daemon, *common, f"--port={port}", "--bind-address=127.0.0.1"),
        # A socket's path may have 107 characters, which a folder of tests can exceed.
        *("--socket=", f"--pid-file={folder / 'pid'}", "--skip-name-resolve", "--skip-log-bin"),
        # A commit outlives a kill of the server, though not of the machine: tests need not wait for the disk.
        *("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M", "--max-connections=200"),
        "--group-concat-max-len=1024",  # MySQL's default
    ]
    certificates = folder / "certificates"
    make_certificates(certificates)
    authority = certificates / "ca.pem"
    command += [f"--ssl-ca={authority}", f"--ssl-cert={certificates / 'server.pem'}"]
    command += [f"--ssl-key={certificates / 'server-key.pem'}"]
    return DatabaseServer(f"mysql+pymysql://root@127.0.0.1:{port}", command, folder / "log", authority)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/libexec")
