"""One contestant on one problem: rows out as files, a process, lists back, measures; and the search for settings."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.contest import run
from bench.peers.environments import UnavailableError
from bench.ranking.contestants import Contestant
from bench.ranking.problems import Problem
from recsys import metrics
from recsys.arrays import Codes, Floats
from recsys.data.interactions import Interactions

WORKER = Path(__file__).with_name("worker.py")
SETTINGS = Path(__file__).with_name("settings.json")
TOP, LONG = 10, 20


@dataclass(frozen=True, eq=False)
class Scores:
    """Measures of the users who have something relevant, shape (u,) each, and processor seconds of the whole process.

    `users` are their codes.
    """

    users: Codes
    ndcg: Floats
    precision: Floats
    recall: Floats
    hit: Floats
    seconds: float


@dataclass(frozen=True)
class Found:
    """The best settings of a search, and what it took."""

    settings: Mapping[str, Any]
    validation_ndcg: float
    trials: int
    failed: int
    processor_seconds: float
    date: str


def fit(
    contestant: Contestant, settings: Mapping[str, Any], problem: Problem, folder: Path, limit: float, *, final: bool
) -> Scores:
    """Learn and make lists; raises UnavailableError.

    Args:
        final: learn from the validation rows too, and be tested; else be validated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = problem.test if final else problem.validation
    relevant = asked[np.flatnonzero(asked.ratings >= problem.relevant)]
    users = np.unique(relevant.users)
    train = problem.train.joined(problem.validation) if final and not contestant.ours else problem.train
    paths = {name: str(folder / f"{name}.npz") for name in ("train", "validation")}
    _write(paths["train"], train)
    _write(paths["validation"], problem.validation)
    np.save(folder / "users.npy", users)
    job = {
        **paths,
        "model": str(contestant.model),
        "users": str(folder / "users.npy"),
        "lists": str(folder / "lists.npy"),
        "shape": problem.shape,
        "relevant": problem.relevant,
        "settings": dict(settings),
        "seed": 0,
        "k": LONG,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    place, log = contestant.environment(), folder / "log.txt"
    run([place.python, str(WORKER), str(folder / "job.json")], place.all_variables(), log, limit)
    text = log.read_text(encoding="utf-8", errors="replace")
    chosen = re.findall(r"^Regression.*$", text, re.MULTILINE)
    if chosen:
        print(f"{problem.name}: {contestant.name}: {chosen[0]}", file=sys.stderr)
    seconds = float(re.findall(r"processor seconds ([\d.]+)", text)[-1])
    return _score(np.load(folder / "lists.npy", allow_pickle=False), relevant, users, problem.shape[1], seconds)


def _score(lists: Codes, relevant: Interactions, users: Codes, n_items: int, seconds: float) -> Scores:
    rows = np.searchsorted(users, relevant.users)
    counts = np.bincount(rows, minlength=len(users))
    hits = metrics.hits(lists, rows, relevant.items, n_items)
    top = hits[:, :TOP]
    return Scores(
        users,
        metrics.ndcg(top, counts),
        metrics.precision(top),
        metrics.recall(hits, counts),
        top.any(axis=1).astype(np.float64),
        seconds,
    )


def search(
    contestant: Contestant,
    problem: Problem,
    folder: Path,
    *,
    trials: int,
    seconds: float,
    limit: float,
    begun: Found | None = None,
) -> Found:
    """The settings of highest nDCG@10 on the validation rows, of as many as begin within the processor time.

    Args:
        begun: what an earlier search found in fewer trials, which count as the first of these.

    Raises:
        UnavailableError: with the last reason, if no trial succeeded.
    """
    best: tuple[float, Mapping[str, Any]] | None = None
    spent, tried, failed, reason = 0.0, 0, 0, "no trial was allowed"
    if begun is not None:
        best = begun.validation_ndcg, begun.settings
        spent, tried, failed = begun.processor_seconds, begun.trials, begun.failed
    for settings in contestant.draws(trials, seed=0)[tried:]:
        if tried and spent >= seconds:
            break
        tried += 1
        try:
            scores = fit(contestant, settings, problem, folder, limit, final=False)
        except UnavailableError as error:
            reason, failed, spent = str(error), failed + 1, spent + limit
            continue
        spent += scores.seconds
        value = float(scores.ndcg.mean())
        if best is None or value > best[0]:
            best = value, settings
    if best is None:
        raise UnavailableError(reason)
    return Found(best[1], round(best[0], 4), tried, failed, round(spent, 1), f"{datetime.now(UTC):%Y-%m-%d}")


def find_settings(protocol: str, contestant: Contestant) -> Found | None:
    """What a search found, None where there was none."""
    found = _read().get(protocol, {}).get(contestant.name)
    return Found(**found) if found else None


def keep_settings(protocol: str, contestant: Contestant, found: Found) -> None:
    """Write what a search found; one that is stopped later loses nothing."""
    kept = _read()
    kept.setdefault(protocol, {})[contestant.name] = asdict(found)
    partial = SETTINGS.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(SETTINGS)


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8")) if SETTINGS.exists() else {}
    return found


def _write(path: str, rows: Interactions) -> None:
    columns = {"users": rows.users, "items": rows.items, "ratings": rows.ratings}
    if rows.timestamps is not None:
        columns["timestamps"] = rows.timestamps
    np.savez(path, **columns)
