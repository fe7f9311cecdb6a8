"""Runs that say RUNNING though their process is gone, as after SIGKILL: they are ended by whoever comes next.

A run carries its host, its process and a sign of life that is renewed while it is open. Only runs of this host are
touched: those of this start of the machine if their process is not there any more, those of another start (or of a
container that is gone) if they gave no sign of life for long.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from mlflow.tracking import MlflowClient

from recsys.runtime.interruption import uninterrupted
from recsys.runtime.processes import ProcessMark, parse_mark, start_of, this_process
from recsys.tracking.pages import all_pages

HOST, PROCESS, SIGN = "recsys.host", "recsys.process", "recsys.sign_of_life"
_BETWEEN_SIGNS = 60.0  # seconds
_SILENT_SECONDS = 600.0
_ENDED = "its process ended without a word (killed, or the machine went down); found by a later step"


def owner_tags() -> dict[str, str]:
    """The tags of a run that this process opens."""
    mark = this_process()
    return {HOST: mark.host, PROCESS: str(mark), SIGN: _now()}


@contextmanager
def signs_of_life(run_id: str) -> Iterator[None]:
    """Renew the sign of life of a run until the block ends; a server that does not answer is no matter."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_BETWEEN_SIGNS):
            with suppress(Exception):  # what is recorded in passing must not end what is recorded
                MlflowClient().set_tag(run_id, SIGN, _now())

    threading.Thread(target=renew, daemon=True, name=f"sign of life of {run_id}").start()
    try:
        yield
    finally:
        over.set()


@uninterrupted()
def end_left_running() -> list[str]:
    """End the runs of this host, in whatever experiment, whose process is gone; their ids."""
    client, here, ended = MlflowClient(), this_process(), []
    experiments = [found.experiment_id for found in all_pages(client.search_experiments)]
    wanted = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{here.host}'"
    for run in all_pages(client.search_runs, experiment_ids=experiments, filter_string=wanted):
        if not is_left(run.data.tags, here):
            continue
        latest = client.get_run(run.info.run_id)  # a training that was interrupted may go on in it by now
        if latest.info.status == "RUNNING" and latest.data.tags.get(PROCESS) == run.data.tags[PROCESS]:
            client.set_tag(run.info.run_id, "error", _ENDED)
            client.set_terminated(run.info.run_id, "KILLED")
            ended.append(run.info.run_id)
    return ended


def is_left(tags: Mapping[str, str], here: ProcessMark, now: datetime | None = None) -> bool:
    """Whether the process that opened a run with these tags is certainly gone, as seen from `here`."""
    mark = parse_mark(tags.get(HOST, ""), tags.get(PROCESS, ""))
    if mark is None or mark.host != here.host:
        return False
    if mark.kernel and mark.kernel == here.kernel:
        return start_of(mark.pid) != mark.started
    try:
        sign = datetime.fromisoformat(tags[SIGN])
    except (KeyError, ValueError):
        return False
    return ((now or datetime.now(UTC)) - sign).total_seconds() > _SILENT_SECONDS


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
