"""Back up the server into one dated file, and restore one.

    python server/backup.py save [FOLDER]            default: backups
    python server/backup.py verify FILE
    python server/backup.py restore FILE [--replace]

The server is that of docker-compose.yml, or, where MLFLOW_BACKEND_STORE_URI is set, the one over that database (the
studies' database: RECSYS_STUDY_STORAGE; the artifacts: MLFLOW_ARTIFACTS_DESTINATION; the accounts of a login:
RECSYS_SERVER_ACCOUNTS; the datasets: RECSYS_DATA, where that is an object store). Where RECSYS_BACKUP_KEY is set, a
backup is sealed with it (HMAC-SHA256 over the digests of its parts), and one that is not so sealed is refused. Both
ways run database.sh, artifacts.py and accounts.py: in the containers or here.

The databases are written first, each as it was at one moment, then the artifacts: those are only ever added, so that
every artifact that a database knows of is in the file.
"""

import gzip
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
FORMAT = 1
MANIFEST = "manifest.json"
ARTIFACTS = "artifacts.tar"
DATASETS = "datasets.tar"
ACCOUNTS = "accounts.db"
SEAL = "manifest.hmac"
KEY = "RECSYS_BACKUP_KEY"
_END_OF_DUMP = b"-- Dump completed"
_DOCKER_ITSELF = 125  # status where docker did not come to run a command
_WITHOUT_DOCKER = (
    "docker with its plugin compose (2.20 or newer) is needed for the server of docker-compose.yml; of a server "
    "without containers, name the database in MLFLOW_BACKEND_STORE_URI"
)
_CHUNK = 1 << 20


class BackupError(Exception):
    """Something that keeps a backup from being made or restored; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """How the parts of a server are reached."""

    database: list[str]
    programs: list[str]
    environment: Mapping[str, str]
    names: tuple[str, ...]
    is_composed: bool
    folder: Path = HERE.parent  # where the server is started: relative paths begin there

    def ask(self, *arguments: str) -> str:
        """What database.sh prints."""
        return self._run([*self.database, *arguments], stdout=subprocess.PIPE).stdout.decode()

    def counts(self, name: str) -> dict[str, int]:
        """Rows of the tables that tell whether a database is in use."""
        return {table: int(rows) for table, rows in (line.split() for line in self.ask("count", name).splitlines())}

    def dump(self, name: str, into: Path) -> None:
        """Write a database, compressed."""
        with gzip.open(into, "wb", compresslevel=3) as file:
            self._stream([*self.database, "dump", name], file)

    def load(self, name: str, source: Path) -> None:
        """Read a database, in place of what is there."""
        self.ask("clear", name)
        with gzip.open(source, "rb") as file:
            self._feed([*self.database, "load", name], file)

    def pack(self, into: Path, *what: str) -> None:
        """Write the artifacts, or the datasets."""
        with into.open("wb") as file:
            self._run([*self.programs, "server/artifacts.py", "pack", *what], stdout=file)

    def unpack(self, source: Path, *what: str) -> None:
        """Read the artifacts, or the datasets."""
        with source.open("rb") as file:
            self._feed([*self.programs, "server/artifacts.py", "unpack", *what], file)

    def dump_accounts(self, into: Path) -> None:
        """Write the accounts of the login."""
        with into.open("wb") as file:
            self._run([*self.programs, "server/accounts.py", "dump"], stdout=file)

    def load_accounts(self, source: Path) -> None:
        """Read the accounts of the login."""
        with source.open("rb") as file:
            self._feed([*self.programs, "server/accounts.py", "load"], file)

    def count_artifacts(self, *what: str) -> int:
        """How many artifacts, or files of datasets, there are."""
        return int(self._run([*self.programs, "server/artifacts.py", "count", *what], stdout=subprocess.PIPE).stdout)

    def _run(self, command: list[str], **streams: Any) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, check=False, **streams
        )
        if done.returncode:
            raise _failed(command, done.returncode)
        return done

    def _stream(self, command: list[str], into: Any) -> None:
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            shutil.copyfileobj(process.stdout, into, _CHUNK)
        if process.returncode:
            raise _failed(command, process.returncode)

    def _feed(self, command: list[str], source: Any) -> None:
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, stdin=subprocess.PIPE) as process:
            assert process.stdin
            try:
                shutil.copyfileobj(source, process.stdin, _CHUNK)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it has said why on its own
        if process.returncode:
            raise _failed(command, process.returncode)


def _failed(command: list[str], status: int) -> BackupError:
    if status == _DOCKER_ITSELF and command[0] == "docker":
        return BackupError(_WITHOUT_DOCKER)
    return BackupError(f"{_shown(command)} failed with status {status}, see above")


def composed() -> Server:
    """The server of docker-compose.yml."""
    compose = ["docker", "compose", "--project-directory", str(HERE.parent)]
    if shutil.which("docker") is None:
        raise BackupError(_WITHOUT_DOCKER)
    script = "/docker-entrypoint-initdb.d/database.sh"
    return Server(
        database=[*compose, "exec", "-T", "mysql", "bash", script],
        programs=[*compose, "run", "--rm", "--no-deps", "-T", "mlflow", "python"],
        environment=os.environ,
        names=("mlflow", "optuna"),
        is_composed=True,
    )


def direct(environment: Mapping[str, str]) -> Server:
    """The server over the databases that the environment names."""
    variables = {"MLFLOW": "MLFLOW_BACKEND_STORE_URI", "OPTUNA": "RECSYS_STUDY_STORAGE"}
    variables = {name: variable for name, variable in variables.items() if environment.get(variable)}
    found, hosts = dict(environment), set()
    for name, variable in variables.items():
        parts = urlsplit(environment[variable])
        if not parts.scheme.startswith("mysql") or not parts.hostname or not parts.path.strip("/"):
            raise BackupError(f"{variable}: a URL such as mysql+pymysql://user:password@host:3306/name is needed")
        hosts.add((parts.hostname, str(parts.port or 3306)))
        found[f"{name}_DB_NAME"] = parts.path.strip("/")
        found[f"{name}_DB_USER"] = unquote(parts.username or "")
        found[f"{name}_DB_PASSWORD"] = unquote(parts.password or "")
    if len(hosts) > 1:
        raise BackupError("MLFLOW_BACKEND_STORE_URI and RECSYS_STUDY_STORAGE: one MySQL server is needed")
    ((found["MYSQL_HOST"], found["MYSQL_TCP_PORT"]),) = hosts
    found.setdefault("MLFLOW_ARTIFACTS_DESTINATION", "mlartifacts")
    return Server(
        database=["bash", str(HERE / "database.sh")],
        programs=[sys.executable],
        environment=found,
        names=tuple(name.lower() for name in variables),
        is_composed=False,
    )


def save(server: Server, folder: Path) -> Path:
    """Write a backup; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    target = folder / f"recsys-{now:%Y%m%dT%H%M%SZ}.tar"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".backup-") as temporary:
        work = Path(temporary)
        counts = {}
        for name in server.names:
            counts[name] = server.counts(name)
            server.dump(name, work / f"{name}.sql.gz")
        server.dump_accounts(work / ACCOUNTS)
        server.pack(work / ARTIFACTS)
        if server.count_artifacts("datasets"):
            server.pack(work / DATASETS, "datasets")
        files = {path.name: _fingerprint(path) for path in sorted(work.iterdir())}
        manifest = {"format": FORMAT, "made": now.isoformat(), "counts": counts, "files": files}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        whole = work / target.name
        with _private(whole) as output:
            sealed = _seal(work, server.environment)
            with tarfile.open(fileobj=output, mode="w") as archive:
                for name in (MANIFEST, *sealed, *files):  # the manifest first: a look at the beginning says what it is
                    archive.add(work / name, name)
            output.flush()
            os.fsync(output.fileno())  # a backup that a power cut could take away is none
        whole.rename(target)
    return target


def restore(server: Server, file: Path, replace: bool = False) -> dict[str, dict[str, int]]:
    """Read a backup into an empty server; the rows that are there then, by database and table.

    Raises:
        BackupError: before anything is written, if the file is damaged or the server is in use and not to be replaced.
    """
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".restore-") as temporary:
        work = Path(temporary)
        manifest = _unpacked(file, work, server.environment)
        names = tuple(manifest["counts"])
        if missing := [name for name in names if name not in server.names]:
            raise BackupError(f"{file} holds the database {missing[0]}: RECSYS_STUDY_STORAGE is needed, its URL here")
        _check_idle(server, names)
        if not replace:
            _check_empty(server, names)
        if (work / DATASETS).exists():
            server.unpack(work / DATASETS, "datasets")
        server.unpack(work / ARTIFACTS)  # first: where the disk is full, nothing has changed yet
        for name in names:
            _load_or_keep(server, name, work)
        server.load_accounts(work / ACCOUNTS)
        return {name: server.counts(name) for name in names}


def verify(file: Path, environment: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Whether a backup is whole, and sealed where there is a key; its rows by database and table. Raises BackupError.

    Writes beside the file what it unpacks, and removes it again.
    """
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".verify-") as temporary:
        counts: dict[str, dict[str, int]] = _unpacked(file, Path(temporary), environment)["counts"]
        return counts


def _load_or_keep(server: Server, name: str, work: Path) -> None:
    """Read a database in place of what is there, which comes back where that fails."""
    before = work / f"{name}.before.sql.gz"
    server.dump(name, before)
    try:
        server.load(name, work / f"{name}.sql.gz")
    except BackupError as error:
        server.load(name, before)
        raise BackupError(f"{error}; the database {name} is as it was before") from None


def _seal(work: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Write the seal of the manifest where there is a key; the names of the files written."""
    if not environment.get(KEY):
        return ()
    (work / SEAL).write_text(_hmac(work / MANIFEST, environment[KEY]), encoding="ascii")
    return (SEAL,)


def _hmac(path: Path, key: str) -> str:
    return hmac.new(key.encode(), path.read_bytes(), hashlib.sha256).hexdigest()


def _check_idle(server: Server, names: tuple[str, ...]) -> None:
    for name in names:
        if others := int(server.ask("connections", name)):
            raise BackupError(f"the database {name} is in use by {others} connections: stop the server and the studies")


def _check_empty(server: Server, names: tuple[str, ...]) -> None:
    for name in names:
        counts = server.counts(name)
        # A server that was only started has its tables and the experiment Default.
        used = {key: rows for key, rows in counts.items() if key != "tables" and rows > (key == "experiments")}
        if used:
            shown = ", ".join(f"{rows} {key}" for key, rows in used.items())
            raise BackupError(f"the database {name} is not empty ({shown}): --replace drops what is there")
    if number := server.count_artifacts():
        raise BackupError(f"there are {number} artifacts already: --replace adds to them")


def _unpacked(file: Path, work: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Unpack a backup and check every part of it; its manifest."""
    try:
        with tarfile.open(file, mode="r:") as archive:
            archive.extractall(work, filter="data")
        if key := environment.get(KEY):
            found = (work / SEAL).read_text(encoding="ascii") if (work / SEAL).is_file() else ""
            if not hmac.compare_digest(found, _hmac(work / MANIFEST, key)):
                raise BackupError(f"{file}: not sealed with {KEY}: it was made without it, or was changed since")
        manifest: dict[str, Any] = json.loads((work / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise BackupError(f"{file}: made in format {manifest['format']}, this is {FORMAT}: use that recsys")
        _check_parts(manifest)
        damaged = [name for name, kept in manifest["files"].items() if _fingerprint(work / name) != kept]
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{file}: no whole backup ({type(error).__name__}: {error})") from None
    if damaged:
        raise BackupError(f"{file}: damaged: {', '.join(damaged)} differ from what was written")
    for name in manifest["counts"]:
        _check_dump(file, work / f"{name}.sql.gz")
    return manifest


def _check_parts(manifest: dict[str, Any]) -> None:
    """Whether the manifest tells of all that a restore reads; raises ValueError."""
    counts, files = manifest["counts"], manifest["files"]
    needed = {f"{name}.sql.gz" for name in counts} | {ACCOUNTS, ARTIFACTS}
    if not counts or not set(counts) <= {"mlflow", "optuna"} or set(files) - {DATASETS} != needed:
        raise ValueError(f"the manifest tells of {', '.join(files) or 'nothing'}")
    if not all(isinstance(rows, int) for table in counts.values() for rows in table.values()):
        raise ValueError("the manifest's counts are no numbers")


def _check_dump(file: Path, dump: Path) -> None:
    """Whether a dump of a database goes to its end."""
    last = b""
    try:
        with gzip.open(dump, "rb") as content:
            while chunk := content.read(_CHUNK):
                last = (last + chunk)[-200:]
    except (OSError, EOFError, zlib.error) as error:
        raise BackupError(f"{file}: {dump.name} in it is damaged ({error})") from None
    if _END_OF_DUMP not in last:
        raise BackupError(f"{file}: {dump.name} in it is cut: its end is missing")


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _shown(command: list[str]) -> str:
    return " ".join(command[-3:])


def _compose(*arguments: str) -> None:
    if subprocess.run(
        ["docker", "compose", "--project-directory", str(HERE.parent), *arguments], check=False
    ).returncode:
        raise BackupError(f"docker compose {' '.join(arguments)} failed, see above")


def main(arguments: list[str]) -> None:
    """Read the command line and do it."""
    replace = "--replace" in arguments
    words = [word for word in arguments if word != "--replace"]
    verb = words[0] if words else ""
    if (verb, len(words)) not in {("save", 1), ("save", 2), ("verify", 2), ("restore", 2)} or (
        replace and verb != "restore"
    ):
        sys.exit(__doc__)
    try:
        if verb == "verify":
            found = verify(Path(words[1]), os.environ)
            print(f"{words[1]}: whole{', and sealed' * bool(os.environ.get(KEY))}; databases {', '.join(found)}")
            return
        server = direct(os.environ) if os.environ.get("MLFLOW_BACKEND_STORE_URI") else composed()
        if verb == "save":
            file = save(server, Path(words[1] if len(words) > 1 else "backups"))
            print(f"saved {file} ({file.stat().st_size / 1e6:.1f} MB)")
            return
        if not Path(words[1]).is_file():
            raise BackupError(f"{words[1]}: no such file")
        if server.is_composed:
            _compose("up", "--detach", "--wait")
            _compose("--profile", "*", "stop", "mlflow", "mlflow-auth")
        found = restore(server, Path(words[1]), replace)
        if server.is_composed:
            _compose("up", "--detach", "--wait")
        for name, counts in found.items():
            print(f"{name}: " + ", ".join(f"{rows} {table}" for table, rows in counts.items()))
        print(f"restored {words[1]}")
    except (BackupError, OSError) as error:
        sys.exit(f"error: backup: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
