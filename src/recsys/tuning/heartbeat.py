"""The heartbeat of a worker: a thread that renews its row, and that of its trial, beside its work."""

import threading
from typing import Self

from recsys.tuning.coordination import StudyCoordinator
from recsys.tuning.storage import RetryingStorage


class HeartbeatThread:
    """Renews a worker's row, and the heartbeat of the trial that it runs, every `interval` seconds.

    Optuna's own thread ends with the first connection that is lost, and its trial would be taken for dead.
    """

    def __init__(self, coordinator: StudyCoordinator, storage: RetryingStorage, worker: str, interval: int) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._worker = worker
        self._interval = interval
        self._trial: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._coordinator.record_heartbeat(worker, None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def take(self, trial_id: int | None, number: int | None) -> None:
        """Renew the heartbeat of this trial from now on, or of none."""
        before = self._trial
        self._trial = None if trial_id is None or number is None else (trial_id, number)
        if self._trial != before:
            self._coordinator.record_heartbeat(self._worker, number)

    def _renew(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                trial = self._trial
                self._coordinator.record_heartbeat(self._worker, trial[1] if trial else None)
                if trial:
                    self._storage.record_heartbeat(trial[0])
            except Exception:  # whatever it is, the next heartbeat may get through
                continue
