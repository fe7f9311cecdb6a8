"""One contestant on one problem: rows out as files, a process, predictions back, measures."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.peers.contestants import Contestant
from bench.peers.data import Problem, Rows
from bench.peers.environments import UnavailableError
from recsys import metrics
from recsys.arrays import Codes, Floats
from recsys.models.base.biases import learn_biases
from recsys.models.bayesian_mf.sessions import cut_sessions, drop_single_sessions

WORKER = Path(__file__).with_name("worker.py")
_SESSION_LENGTH = 10  # of a library that gives every session a number of its own, and has no groups of them
Curve = list[tuple[float, float]]
"""Seconds since a fit began, and the RMSE on the test rows by then."""


@dataclass(frozen=True)
class Fit:
    """What a fit took and how it predicts.

    `imported_gb` is the memory held once everything was imported, `peak_gb` the most ever; `filled` counts the test
    rows that the library said nothing of. `scores` has RMSE, MAE, AUC and AUC per user, each by its name.
    """

    fit_seconds: float
    predict_seconds: float
    load_seconds: float
    imported_gb: float
    peak_gb: float
    filled: int
    scores: Mapping[str, float]


class Arena:
    """A problem's rows on disk, in a folder of its own."""

    def __init__(self, problem: Problem, folder: Path, limit: float) -> None:
        """Write the rows; a process that runs longer than `limit` seconds is ended."""
        self.problem, self.folder, self.limit = problem, folder, limit
        folder.mkdir(parents=True)
        train, test = _sessions(problem)
        _write(folder / "train.npz", problem.train, train, ratings=True)
        _write(folder / "test.npz", problem.test, test, ratings=False)

    def fit(self, contestant: Contestant, settings: Mapping[str, Any], seed: int, rounds: int | None = None) -> Fit:
        """Fit, predict and score; raises UnavailableError with the reason where that fails.

        Args:
            rounds: of ours, fit so many epochs or draws to all training rows, and choose nothing.
        """
        predictions = self.folder / "predictions.npz"
        asked = {} if rounds is None else {"rounds": rounds}
        took = self._run(contestant, settings, seed, predictions=str(predictions), **asked)
        with np.load(predictions, allow_pickle=False) as said:
            rating, filled = fill(self.problem, said["rating"])
            like = said["like"] if "like" in said.files else None
        predictions.unlink()
        return Fit(**took, filled=filled, scores=score(self.problem, rating, like))

    def watch(self, contestant: Contestant, settings: Mapping[str, Any], seed: int) -> Curve:
        """The curve of one fit, which alone is given the test's ratings; raises UnavailableError."""
        watched = self.folder / "watch.npz"
        _write(watched, self.problem.test, None, ratings=True)
        try:
            took = self._run(contestant, settings, seed, watch=str(watched))
        finally:
            watched.unlink()
        return [(seconds, rmse) for seconds, rmse in took["curve"]]

    def _run(self, contestant: Contestant, settings: Mapping[str, Any], seed: int, **more: str | int) -> dict[str, Any]:
        return fit_files(
            contestant,
            settings,
            self.folder,
            self.limit,
            scale=self.problem.scale,
            like_threshold=self.problem.like_threshold,
            seed=seed,
            **more,
        )


def fit_files(
    contestant: Contestant, settings: Mapping[str, Any], folder: Path, limit: float, **more: object
) -> dict[str, Any]:
    """Have a contestant learn from `train.npz` of a folder, and predict `test.npz`, in a process of its own.

    Args:
        contestant: who learns.
        settings: its settings, beside those that are fixed.
        folder: where the job, the log and what the process leaves are written, too.
        limit: seconds after which it is ended.
        more: the rest of the job, as worker.py has it.

    Returns:
        What it took.

    Raises:
        UnavailableError: with the reason, if it fails or takes too long.
    """
    place, result = contestant.environment(), folder / "result.json"
    job = {
        "model": str(contestant.model),
        "train": str(folder / "train.npz"),
        "test": str(folder / "test.npz"),
        "settings": {**settings, **contestant.fixed},
        "result": str(result),
        **more,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    result.unlink(missing_ok=True)
    run([place.python, str(WORKER), str(path)], place.all_variables(), folder / "log.txt", limit)
    took: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return took


def run(command: list[str], variables: Mapping[str, str], log: Path, limit: float) -> None:
    """Run a program and end it, with all it has started, after `limit` seconds.

    Raises:
        UnavailableError: with the last line it wrote, if it fails or takes too long.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(variables), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"ended after {limit:g} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise UnavailableError(lines[-1] if lines else f"exit status {code}")


def fill(problem: Problem, rating: Floats) -> tuple[Floats, int]:
    """Predictions for every test row, within the scale: mean and biases where there was none, and how many those are.

    Raises:
        UnavailableError: if there is not one prediction a test row.
    """
    if rating.shape != problem.test.ratings.shape:
        raise UnavailableError(f"{len(problem.test)} predictions are needed, got an array of shape {rating.shape}")
    missing = ~np.isfinite(rating)
    if missing.any():
        (users, test_users), (items, test_items) = (
            _codes(getattr(problem.train, side), getattr(problem.test, side)) for side in ("users", "items")
        )
        biases = learn_biases(users, items, problem.train.ratings, int(users.max()) + 1, int(items.max()) + 1)
        rating = np.where(missing, biases.rating(test_users, test_items), rating)
    return np.clip(rating, *problem.scale), int(missing.sum())


def score(problem: Problem, rating: Floats, like: Floats | None = None) -> dict[str, float]:
    """RMSE and MAE of the ratings; AUCs of the probabilities of a like, where there are any, or else of the ratings.

    With probabilities, `auc_of_rating` and `auc_per_user_of_rating` are those of the ratings all the same.
    """
    truth, (users, _) = problem.test.ratings, _codes(problem.test.users, problem.test.users)
    liked = truth >= problem.like_threshold
    scores = {"rmse": metrics.rmse(truth, rating), "mae": metrics.mae(truth, rating)}
    for name, order in (("", like if like is not None else rating), ("_of_rating", rating)):
        if name == "" or like is not None:
            scores[f"auc{name}"] = metrics.auc(liked, order)
            scores[f"auc_per_user{name}"] = float(metrics.user_aucs(users, liked, order)[1].mean())
    return scores


def _codes(known: Any, other: Any) -> tuple[Codes, Codes]:
    """Both as positions among the known ids, -1 for one that is not known."""
    codes, ids = pd.factorize(known)
    return codes.astype(np.int32), pd.Index(ids).get_indexer(pd.Index(other)).astype(np.int32)


def _sessions(problem: Problem) -> tuple[Codes | None, Codes | None]:
    """The session of each training and each test row, as ours cut them, -1 for none; None where there are no times."""
    train, test = problem.train, problem.test
    if train.timestamps is None or test.timestamps is None:
        return None, None
    users, asked = _codes(train.users, test.users)
    sessions, of_rating = drop_single_sessions(*cut_sessions(users, train.timestamps, _SESSION_LENGTH))
    return np.where(of_rating < len(sessions), of_rating, -1), sessions.find(asked, test.timestamps)


def _write(path: Path, rows: Rows, sessions: Codes | None, *, ratings: bool) -> None:
    columns: dict[str, Any] = {"users": rows.users, "items": rows.items}
    if ratings:
        columns["ratings"] = rows.ratings
    if rows.timestamps is not None:
        columns["timestamps"] = rows.timestamps
    if sessions is not None:
        columns["sessions"] = sessions
    np.savez(path, **columns)
