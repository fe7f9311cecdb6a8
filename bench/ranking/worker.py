"""Runs in a contestant's own process: rows and settings in, lists out. Needs NumPy only.

A model's file has `fit(rows, settings, seed)`, which returns a function from users, shape (u,), to scores of shape
(u, n_items); or it has `lists(rows, validation, settings, seed, users, k)`, which makes the lists itself.
"""

import importlib.util
import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_USERS_AT_A_TIME = 256


def read_rows(path: str, job: dict[str, Any]) -> SimpleNamespace:
    """Rows of one file."""
    with np.load(path, allow_pickle=False) as columns:
        found = {name: columns[name] for name in columns.files}
    return SimpleNamespace(**{"timestamps": None, **found}, shape=tuple(job["shape"]), relevant=job["relevant"])


def as_input(rows: SimpleNamespace, kind: str) -> SimpleNamespace:
    """Rows and the value of each, `values`, as the setting `input` has it."""
    kept = rows.ratings >= rows.relevant if kind == "likes" else np.ones(len(rows.ratings), bool)
    values = rows.ratings / rows.ratings.max() if kind == "ratings" else np.ones(len(rows.ratings))
    return SimpleNamespace(
        users=rows.users[kept], items=rows.items[kept], values=values[kept].astype(np.float32), shape=rows.shape
    )


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The k items of highest score, of equal ones the lowest code; -1 where the score is -inf."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(scores, order, 1)), order, -1)


def run(job: dict[str, Any]) -> None:
    """Do the job."""
    spec = importlib.util.spec_from_file_location("model", job["model"])
    assert spec is not None
    assert spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    rows = read_rows(job["train"], job)
    users = np.load(job["users"], allow_pickle=False)
    if hasattr(model, "lists"):
        validation = read_rows(job["validation"], job)
        np.save(job["lists"], model.lists(rows, validation, job["settings"], job["seed"], users, job["k"]))
        return
    settings = dict(job["settings"])
    score = model.fit(as_input(rows, settings.pop("input")), settings, job["seed"])
    order = np.argsort(rows.users, kind="stable")
    starts = np.searchsorted(rows.users[order], np.arange(rows.shape[0] + 1))
    found = []
    for start in range(0, len(users), _USERS_AT_A_TIME):
        some = users[start : start + _USERS_AT_A_TIME]
        scores = np.array(score(some), np.float64)
        for row, user in enumerate(some):
            scores[row, rows.items[order[starts[user] : starts[user + 1]]]] = -np.inf
        found.append(best(np.where(np.isnan(scores), -np.inf, scores), job["k"]))
    np.save(job["lists"], np.concatenate(found))


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"processor seconds {used.ru_utime + used.ru_stime:.1f}")
