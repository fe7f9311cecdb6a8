"""Move an sqlite store to the team's server, whose database is empty: runs, metrics, artifacts, versions, aliases.

    python server/migrate.py [mlflow.db [FOLDER OF DATA]]

The tables are copied row by row, since what moves a registry by MLflow's API (mlflow-export-import) gives runs and
versions new ids and numbers: both databases have the tables of the same MLflow version, and ids, times and stages stay.
Only the places of artifacts change. The artifacts are copied first, the rows in one transaction after them: whatever
fails, the server shows nothing of it. Where RECSYS_DATA is an object store, the prepared datasets of the folder of data
(default: the user's, as before RECSYS_DATA was set) are copied into it first.
"""

import os
import sys
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "src")]

from platformdirs import user_data_path  # noqa: E402
from sqlalchemy import Connection, Engine, create_engine, inspect, text  # noqa: E402

from recsys.data.manifest import FORMAT, find_format, read_manifest  # noqa: E402
from recsys.errors import InputError  # noqa: E402
from server.backup import BackupError, Server, composed, direct  # noqa: E402
from server.upgrade import revisions, upgrade  # noqa: E402
from steps.support.datasets import object_store  # noqa: E402

# Columns that hold the place of artifacts.
PLACES = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
    "trace_tags": ["value"],
}
_ROWS = 1000
_OWN = "alembic_version"


def main(arguments: list[str]) -> None:
    """Read the command line and do it."""
    if len(arguments) > 2 or "--help" in arguments:
        sys.exit(__doc__)
    source = Path(arguments[0] if arguments else "mlflow.db")
    try:
        if not source.is_file():
            raise BackupError(f"{source}: no such file: FROM=path/to/mlflow.db names the sqlite store")
        datasets = _move_datasets(Path(arguments[1]) if len(arguments) > 1 else None)
        counts, artifacts = migrate(source.absolute(), *_target())
    except (BackupError, InputError, OSError) as error:
        sys.exit(f"error: migrate: {error}")
    for table, rows in counts.items():
        print(f"{table}: {rows}")
    copied = f", {datasets} datasets" if datasets else ""
    print(f"moved {sum(counts.values())} rows and {artifacts} artifacts{copied}; {source} is as it was")


def migrate(source: Path, server: Server, uri: str) -> tuple[dict[str, int], int]:
    """Copy everything; the rows by table, and the number of artifacts.

    Raises:
        BackupError: before anything is written if the stores do not fit; later with all rows taken back.
    """
    origin = f"sqlite:///{source}"
    _check_revisions(origin, uri)
    engine, target = create_engine(origin), create_engine(uri)
    with engine.connect() as old, target.connect() as new:
        _check_empty(new, target)
        tables = [table for table in inspect(engine).get_table_names() if table != _OWN and _count(old, table)]
        places = _places(old)
        _check_lengths(old, target, tables)
        _check_names(old, new, engine, tables)
        artifacts = _move_artifacts(server, places)
        counts = _move_rows(old, new, tables, places)
    return counts, artifacts


def _move_datasets(given: Path | None) -> int:
    """Copy the datasets of a folder into the object store, where there is one; their number."""
    store = object_store()
    if store is None:
        return 0
    folder = (given or user_data_path("recsys", appauthor=False)) / "prepared"
    store.check()
    found = [path for path in sorted(folder.glob("[0-9a-f]*")) if find_format(path) == FORMAT]
    for path in found:
        read_manifest(path)  # a damaged one is told, and not spread
        print(f"in the object store: {store.publish(path)}", flush=True)
    return len(found)


def _target() -> tuple[Server, str]:
    uri = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if uri:
        return direct(os.environ), uri
    settings = HERE.parent / ".env"
    if not settings.is_file():
        raise BackupError("MLFLOW_BACKEND_STORE_URI is needed, the database's URL; or make up, which makes .env")
    lines = [line for line in settings.read_text(encoding="utf-8").splitlines() if "=" in line]
    values = dict(line.split("=", 1) for line in lines)
    port = values.get("MYSQL_PUBLISHED_PORT") or "3306"
    return composed(), f"mysql+pymysql://mlflow:{values['MLFLOW_DB_PASSWORD']}@127.0.0.1:{port}/mlflow"


def _check_revisions(origin: str, uri: str) -> None:
    found, head, _ = revisions(origin)
    if found != head:
        raise BackupError(
            f"{origin.removeprefix('sqlite:///')} is of another MLflow (revision {found}, here {head}): "
            f"mlflow db upgrade {origin}"
        )
    found, _, _ = revisions(uri)
    if found is None:
        upgrade(uri, is_empty=True)
    elif found != head:
        raise BackupError(f"the server is of another MLflow (revision {found}, here {head}): make upgrade")


def _check_empty(new: Connection, target: Engine) -> None:
    # A server that was only started has the experiment Default.
    used = {
        table: rows
        for table in inspect(target).get_table_names()
        if table not in (_OWN, "workspaces") and (rows := _count(new, table)) > (table == "experiments")
    }
    if used:
        raise BackupError(f"the server is not empty ({', '.join(f'{rows} {table}' for table, rows in used.items())})")


def _places(old: Connection) -> list[tuple[str, Path, str]]:
    """Where each experiment's artifacts are, in which folder, and where they will be; the longest first."""
    found = []
    for number, place in old.execute(text("select experiment_id, artifact_location from experiments")):
        folder = Path(str(place).removeprefix("file://"))
        if "://" in str(folder) or str(place).startswith("mlflow-artifacts:"):
            raise BackupError(
                f"experiment {number} keeps its artifacts at {place}: only folders of this machine are moved"
            )
        found.append((str(place), folder, f"mlflow-artifacts:/{number}"))
    return sorted(found, key=lambda item: -len(item[0]))


def _check_lengths(old: Connection, target: Engine, tables: list[str]) -> None:
    """Text that sqlite keeps though it is longer than the column."""
    for table in tables:
        for column in inspect(target).get_columns(table):
            length = getattr(column["type"], "length", None)
            if not length:
                continue
            name = column["name"]
            statement = f'select max(length("{name}")) from "{table}"'
            longest = old.execute(text(statement)).scalar() or 0
            if isinstance(longest, int) and longest > length:
                raise BackupError(f"{table}.{name}: the server takes {length} characters, there is a text of {longest}")


def _check_names(old: Connection, new: Connection, engine: Engine, tables: list[str]) -> None:
    """Names that are two on sqlite and one on the server, where it compares without case or accents."""
    for table in tables:
        inspector = inspect(engine)
        keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
        keys += [unique["column_names"] for unique in inspector.get_unique_constraints(table)]
        for key in keys:
            same = {name: _same(old, table, name, _collation(new, table, name)) for name in key}
            if not any(same.values()):
                continue
            seen: dict[tuple[object, ...], tuple[object, ...]] = {}
            columns = ", ".join(f'"{name}"' for name in key)
            for row in old.execute(text(f'select {columns} from "{table}"')):
                folded = tuple(same[name].get(value, value) for name, value in zip(key, row, strict=True))
                other = seen.setdefault(folded, tuple(row))
                if other != tuple(row):
                    raise BackupError(
                        f"{table}: {other} and {tuple(row)} are one on this server, which compares "
                        f"{_collation(new, table, key[0]) or 'names without case'}: make its databases by "
                        "server/database.sh, whose collation is utf8mb4_bin, or rename one"
                    )


def _same(old: Connection, table: str, column: str, collation: str | None) -> dict[object, str]:
    """The column's texts that the collation takes for another one there, by their common form."""
    if collation is None:
        return {}
    folded: dict[str, list[str]] = {}
    for (value,) in old.execute(text(f'select distinct "{column}" from "{table}"')):
        if isinstance(value, str):
            folded.setdefault(_folded(value, collation), []).append(value)
    return {value: form for form, values in folded.items() if len(values) > 1 for value in values}


def _folded(value: str, collation: str) -> str:
    value = value.rstrip(" ")
    if collation.endswith("_bin"):
        return value
    return "".join(part for part in unicodedata.normalize("NFKD", value) if not unicodedata.combining(part)).casefold()


def _collation(new: Connection, table: str, column: str) -> str | None:
    statement = (
        "select collation_name from information_schema.columns where table_schema = database() "
        "and table_name = :table and column_name = :column"
    )
    found = new.execute(text(statement), {"table": table, "column": column}).scalar()
    return str(found) if found else None


def _move_artifacts(server: Server, places: list[tuple[str, Path, str]]) -> int:
    moved = 0
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "artifacts.tar"
        with tarfile.open(packed, "w") as archive:
            for _, origin, place in places:
                for path in _files(origin):
                    name = f"{place.removeprefix('mlflow-artifacts:/')}/{path.relative_to(origin).as_posix()}"
                    archive.add(path, name, recursive=False)
                    moved += 1
        before = server.count_artifacts()
        server.unpack(packed)
    if server.count_artifacts() != before + moved:
        raise BackupError(f"{moved} artifacts were sent, {server.count_artifacts() - before} arrived")
    return moved


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _move_rows(
    old: Connection, new: Connection, tables: list[str], places: list[tuple[str, Path, str]]
) -> dict[str, int]:
    new.rollback()
    # Rows come table by table, in no order of reference; and the experiment Default has the number 0.
    new.execute(text("set session foreign_key_checks = 0"))
    new.execute(text("set session sql_mode = concat(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"))
    new.commit()
    counts = {}
    with new.begin():
        for table in tables:
            new.execute(text(f"delete from `{table}`"))
            rows = old.execute(text(f'select * from "{table}"'))
            columns = list(rows.keys())
            names = ", ".join(f"`{name}`" for name in columns)
            values = ", ".join(f":{name}" for name in columns)
            moving = PLACES.get(table, ())
            for some in rows.mappings().partitions(_ROWS):
                new.execute(
                    text(f"insert into `{table}` ({names}) values ({values})"),
                    [
                        {name: _moved(row[name], places) if name in moving else row[name] for name in columns}
                        for row in some
                    ],
                )
            counts[table] = _count(new, table)
            if counts[table] != _count(old, table):
                raise BackupError(f"{table}: {_count(old, table)} rows were sent, {counts[table]} arrived")
    return counts


def _moved(value: Any, places: list[tuple[str, Path, str]]) -> Any:
    """A place of artifacts as it is on the server."""
    for origin, _, place in places:
        if isinstance(value, str) and (value == origin or value.startswith(f"{origin}/")):
            return place + value.removeprefix(origin)
    return value


def _count(connection: Connection, table: str) -> int:
    quote = connection.dialect.identifier_preparer.quote
    return int(connection.execute(text(f"select count(*) from {quote(table)}")).scalar() or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
