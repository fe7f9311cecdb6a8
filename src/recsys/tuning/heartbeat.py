"""A worker's signs of life, given beside its work."""

import threading
from typing import Self

from recsys.tuning.coordination import Ledger
from recsys.tuning.storage import PatientStorage


class Pulse:
    """Renews the worker's row, and the heartbeat of the trial it runs, from a thread of its own.

    Optuna's own thread ends with the first connection that is lost, and its trial would be taken for dead.
    """

    def __init__(self, ledger: Ledger, storage: PatientStorage, worker: str, interval: int) -> None:
        self._ledger = ledger
        self._storage = storage
        self._worker = worker
        self._interval = interval
        self._trial: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)
        self._ledger.beat(worker, None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def take(self, trial_id: int | None, number: int | None) -> None:
        """Speak for this trial from now on, or for none."""
        before = self._trial
        self._trial = None if trial_id is None or number is None else (trial_id, number)
        if self._trial != before:
            self._ledger.beat(self._worker, number)

    def _beat_on(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                trial = self._trial
                self._ledger.beat(self._worker, trial[1] if trial else None)
                if trial:
                    self._storage.record_heartbeat(trial[0])
            except Exception:  # whatever it is, the next sign of life may get through
                continue
