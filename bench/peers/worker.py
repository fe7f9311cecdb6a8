"""Fits one model on rows from files, predicts other rows, and writes what that took.

    python worker.py JOB.json

This file runs by path in the environment of any library, so it imports NumPy and nothing else from outside. The job
names a file that offers

    import_for(settings)                 optional: imports what a fit with these settings would
    load(rows) -> data                   the library's own table of the ratings; its time is kept apart
    fit(data, settings, seed) -> predict
    predict(rows) -> rating              shape (n,), NaN where the library says nothing; or a dict with `rating` and
                                         `like`, the probability of a like
    watch(data, settings, seed, rows)    optional: (seconds since the fit began, RMSE on `rows`) after every step of the
                                         fit, for a job that asks for it
    load_all(rows) -> data               optional, with the next: as `load`, for a fit that chooses nothing
    fit_rounds(data, settings, seed, n)  optional: as `fit`, for a job that asks for n rounds: epochs, say

where rows have `users`, `items`, `timestamps` and `sessions` (or None), `scale`, `like_threshold` and, to learn from,
`ratings`.
"""

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def read_rows(path: str, job: dict[str, Any]) -> SimpleNamespace:
    """Rows of one file; a column that is not there is None."""
    with np.load(path, allow_pickle=False) as columns:
        found = {name: columns[name] for name in columns.files}
    absent = {"ratings": None, "timestamps": None, "sessions": None}
    return SimpleNamespace(**absent | found, scale=job["scale"], like_threshold=job["like_threshold"])


def peak_gb() -> float:
    """The most memory this process has held, in GB (10^9 bytes).

    Linux counts the memory of the parent into ru_maxrss of a process it started; VmHWM is the process's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def import_file(path: str) -> ModuleType:
    """The module in a file, under the file's name."""
    spec = importlib.util.spec_from_file_location(f"model_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; gives what it took, in seconds and GB."""
    model = import_file(job["model"])
    if hasattr(model, "import_for"):
        model.import_for(job["settings"])
    imported = peak_gb()
    train = read_rows(job["train"], job)
    start = time.perf_counter()
    data = model.load_all(train) if job.get("rounds") else model.load(train)
    loaded = time.perf_counter()
    if job.get("watch"):
        curve = model.watch(data, job["settings"], job["seed"], read_rows(job["watch"], job))
        return {"curve": [[float(seconds), float(rmse)] for seconds, rmse in curve]}
    given = data, job["settings"], job["seed"]
    predict = model.fit_rounds(*given, job["rounds"]) if job.get("rounds") else model.fit(*given)
    fitted = time.perf_counter()
    test = read_rows(job["test"], job)
    read = time.perf_counter()
    said = predict(test)
    done = time.perf_counter()
    said = said if isinstance(said, dict) else {"rating": said}
    columns: dict[str, Any] = {name: np.asarray(values, np.float64) for name, values in said.items()}
    np.savez(job["predictions"], **columns)
    return {
        "load_seconds": loaded - start,
        "fit_seconds": fitted - loaded,
        "predict_seconds": done - read,
        "imported_gb": imported,
        "peak_gb": peak_gb(),
    }


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["result"]).write_text(json.dumps(run(job)), encoding="utf-8")
