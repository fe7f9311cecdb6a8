"""One retraining of a model at a time, on however many machines, by a tag of the registered model.

The registry has no lock over HTTP and machines' clocks differ. So whoever works writes its name and a count there and
raises the count every few seconds. Who finds another's count watches it: one that rises is at work, one that stands
still has died and is taken over from. Two that begin in the same second both write; the one that reads its own name
after a pause goes on. Should two still work at once, both register a version, and promotion leaves one champion
(docs/decisions/0008-promotion-converges.md).
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recsys.runtime.interruption import uninterrupted
from recsys.tracking.retry import retry_mlflow

_KEY = "retraining"


class HeldError(Exception):
    """Another process is at work; the message says which."""


@dataclass(frozen=True)
class Pace:
    """Seconds: between two beats, without a beat until a holder counts as dead, and from a claim to its check."""

    beat: float = 5.0
    dead: float = 30.0
    settle: float = 1.0


class Lease:
    """What a holder knows of its lease."""

    def __init__(self, name: str, holder: str, pace: Pace) -> None:
        self._name, self._holder, self._pace = name, holder, pace
        self._beats = 0
        self._ended = threading.Event()
        self._lost = ""
        self.succeeded: str | None = None
        """The holder that died and left its lease, if there was one."""

    def check(self) -> None:
        """Raise HeldError if another process took over, because this one stood still for too long."""
        if self._lost:
            raise HeldError(self._lost)

    def claim(self) -> None:
        """Take the lease, or raise HeldError."""
        self.succeeded = self._watch(read(self._name))
        self._write()
        time.sleep(self._pace.settle * random.uniform(0.5, 1.0))
        found = read(self._name)
        if found is None or found[0] != self._holder:
            raise HeldError(f"run {found[0] if found else '?'} began at the same moment")

    def _watch(self, found: tuple[str, int] | None) -> str | None:
        limit = time.monotonic() + self._pace.dead
        first = found
        while found is not None:
            if found != first:
                raise HeldError(f"run {found[0]} is at it")
            if time.monotonic() > limit:
                return found[0]
            time.sleep(min(self._pace.beat, self._pace.dead) / 5)
            found = read(self._name)
        return None

    def _write(self) -> None:
        self._beats += 1
        value = json.dumps([self._holder, self._beats])
        retry_mlflow(MlflowClient().set_registered_model_tag)(self._name, _KEY, value)

    def keep(self) -> None:
        """Beat until told to end."""
        while not self._ended.wait(self._pace.beat):
            try:
                found = read(self._name)
                if found is not None and found[0] != self._holder:
                    self._lost = f"run {found[0]} took over, since this one gave no sign for too long"
                    return
                self._write()
            except Exception:  # a registry that is away: the next beat tries again
                continue

    def end(self) -> None:
        """Have the beat end: what it was about to write would else come after the lease is given back."""
        self._ended.set()

    @uninterrupted()
    def give_back(self) -> None:
        """Let others work."""
        try:
            found = read(self._name)
            if found is not None and found[0] == self._holder:
                MlflowClient().delete_registered_model_tag(self._name, _KEY)
        except MlflowException:
            return  # it will be found dead


@contextmanager
def held(name: str, holder: str, pace: Pace | None = None) -> Iterator[Lease]:
    """Hold a model's lease while the block runs.

    Args:
        holder: whoever works, as others are told: the id of a run.

    Raises:
        HeldError: if another process holds it.
    """
    lease = Lease(name, holder, pace or Pace())
    lease.claim()
    thread = threading.Thread(target=lease.keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.end()
        thread.join()
        lease.give_back()


@uninterrupted()
@retry_mlflow
def read(name: str) -> tuple[str, int] | None:
    """Who holds a model's lease, and its count; None where nobody does."""
    tags = MlflowClient().get_registered_model(name).tags
    if _KEY not in tags:
        return None
    holder, beats = json.loads(tags[_KEY])
    return str(holder), int(beats)
