"""Make the tables of the store that `make run` uses, before `mlflow run` does: of two at once, MLflow's own fail."""

import sys
from pathlib import Path

from recsys.errors import InputError
from recsys.tracking import connection
from steps.support.entrypoint import tracking_uri

if __name__ == "__main__":
    try:
        connection.connect(tracking_uri(Path.cwd()))
    except InputError as told:
        sys.exit(f"error: {told}")
