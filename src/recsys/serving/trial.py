"""Lists while a version is on trial: who is shown what, what went wrong with it, and what it would have answered."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from recsys.experiments.assignment import CHALLENGER, CHAMPION
from recsys.serving.http import dump
from recsys.serving.kept_lists import MadeList
from recsys.serving.service import OnTrial, Served, Service

_BUSY_SECONDS = 0.1  # requests that wait so long are answered before anything is tried beside


class Made(NamedTuple):
    """A list, and by whom."""

    served: Served
    list: MadeList


Make = Callable[[Served], Made]


class Shown(NamedTuple):
    """What a user of the trial is shown, and what the record says of it."""

    made: Made
    arm: str
    failed: bool


def show(service: Service, trial: OnTrial, user: str, make: Make) -> Shown:
    """The list of the user's arm. Where the challenger fails its user gets the champion's, and stays in the arm.

    The champion's own failure is the request's, as it is without a trial.
    """
    arm = trial.arm_of(user)
    if arm == CHAMPION:
        return Shown(make(service.current()), arm, False)
    if trial.served is not None:
        try:
            return Shown(make(trial.served), arm, False)
        except Exception as error:  # whatever a version may raise
            service.report(error)
    service.metrics.failed.labels(CHALLENGER).inc()
    return Shown(make(service.current()), arm, True)


def beside(service: Service, trial: OnTrial, make: Make, keep: Callable[[str | None], None]) -> None:
    """Ask the challenger too, after the reply, and keep what it would have answered; nothing where it is too busy."""

    def ask() -> None:
        keep(None if service.lag > _BUSY_SECONDS else _answer(service, trial, make))

    try:
        asyncio.get_running_loop().call_soon(ask)
    except RuntimeError:  # no loop: nobody waits
        ask()


def _answer(service: Service, trial: OnTrial, make: Make) -> str:
    started = time.perf_counter()
    try:
        if trial.served is None:
            raise LookupError("the challenger could not be opened")
        made = make(trial.served)
    except Exception as error:
        service.report(error)
        service.metrics.failed.labels(CHALLENGER).inc()
        return dump({"failed": True, "seconds": time.perf_counter() - started}).decode()
    found = made.list
    answer = {"failed": False, "seconds": found.seconds, "policy": found.listed.policy, "items": found.items}
    return dump({**answer, "version": made.served.version}).decode()
