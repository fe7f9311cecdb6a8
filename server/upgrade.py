"""Bring the tables of the tracking database to this MLflow's version; say what they were. Take a backup before."""

import os
import sys


def revisions(uri: str) -> tuple[str | None, str, bool]:
    """The database's revision (None: it is empty), this MLflow's, and whether this MLflow knows the database's."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine

    scripts = ScriptDirectory.from_config(_get_alembic_config(uri))  # type: ignore[no-untyped-call]
    with create_sqlalchemy_engine(uri).connect() as connection:  # type: ignore[no-untyped-call]
        found = MigrationContext.configure(connection).get_current_revision()
    head = str(scripts.get_current_head())
    try:
        known = found is None or scripts.get_revision(found) is not None
    except CommandError:
        known = False
    return found, head, known


def upgrade(uri: str, is_empty: bool) -> None:
    """Migrate the tables, or make them."""
    from mlflow.store.db.utils import _safe_initialize_tables, _upgrade_db, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    (_safe_initialize_tables if is_empty else _upgrade_db)(engine)


def main() -> None:
    """Upgrade the database of MLFLOW_BACKEND_STORE_URI."""
    uri = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if not uri:
        sys.exit("error: upgrade: MLFLOW_BACKEND_STORE_URI is needed, the database's URL")
    import mlflow

    found, head, known = revisions(uri)
    if found == head:
        print(f"the tables are those of MLflow {mlflow.__version__} already (revision {head})")
    elif not known:
        sys.exit(
            f"error: upgrade: the tables (revision {found}) are of a newer MLflow than {mlflow.__version__}: install "
            "that one, or restore the backup taken before"
        )
    else:
        upgrade(uri, is_empty=found is None)
        print(f"the tables are those of MLflow {mlflow.__version__} now: revision {found or 'none'} to {head}")


if __name__ == "__main__":
    main()
