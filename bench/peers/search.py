"""Settings found on validation rows, by the same budget for every contestant, and the file that keeps them."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna

from bench.peers.contest import Arena
from bench.peers.contestants import Contestant
from bench.peers.environments import UnavailableError
from recsys.errors import InputError

FILE = Path(__file__).with_name("settings.json")
_RANDOM_TRIALS = 4  # after these TPE has something to go by


@dataclass(frozen=True)
class Found:
    """The best settings of a search, beside those that are fixed; their RMSE on the validation rows."""

    settings: Mapping[str, Any]
    validation_rmse: float
    trials: int
    failed: int
    seconds: float
    date: str


def search(contestant: Contestant, arena: Arena, *, trials: int, seconds: float, seed: int) -> Found:
    """Minimise the RMSE on the arena's held-out rows; the first trial is what the contestant names first.

    Args:
        seconds: after these no further trial starts.

    Raises:
        UnavailableError: with the last reason, if no trial succeeded.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS))
    if contestant.first:
        study.enqueue_trial(dict(contestant.first))
    best: tuple[float, Mapping[str, Any]] | None = None
    start, reason, failed, number = time.monotonic(), "no trial was allowed", 0, 0
    while number < trials and (number == 0 or time.monotonic() - start < seconds):
        trial = study.ask()
        # Ours start from their defaults, whatever those are; the others from `first`, enqueued above.
        settings = {} if number == 0 and not contestant.first else contestant.suggest(trial)
        number += 1
        try:
            rmse = arena.fit(contestant, settings, seed).scores["rmse"]
        except UnavailableError as error:
            reason, failed = str(error), failed + 1
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, rmse)
        if best is None or rmse < best[0]:
            best = rmse, settings
    if best is None:
        raise UnavailableError(reason)
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in best[1].items()}
    took = round(time.monotonic() - start, 1)
    return Found(rounded, round(best[0], 4), number, failed, took, f"{datetime.now(UTC):%Y-%m-%d}")


class Settings:
    """What searches have found, by set and contestant, in a JSON file."""

    def __init__(self, path: Path = FILE) -> None:
        """Read the file; one that is not there is empty. Raises InputError if it cannot be read."""
        self.path = path
        try:
            self._found: dict[str, dict[str, Any]] = (
                json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            )
        except ValueError as error:
            raise InputError(f"{path}: JSON is expected, but {error}; run with --search to write it anew") from None

    def find(self, set_name: str, contestant: Contestant) -> Found | None:
        """What was found for a contestant; for folds, on the whole set that they are of."""
        found = self._found.get(set_name.removesuffix("-folds"), {}).get(contestant.name)
        return Found(**found) if found else None

    def keep(self, set_name: str, contestant: Contestant, found: Found) -> None:
        """Write what was found; a search that is stopped later loses nothing."""
        self._found.setdefault(set_name, {})[contestant.name] = asdict(found)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self._found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(self.path)
