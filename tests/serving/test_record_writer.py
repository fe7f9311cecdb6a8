"""The record in the hands of a process of its own: what it is asked is written once, however the process ends."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests

from recsys.serving import record
from recsys.serving.record import Impression, WriterProcess
from tests.support.record_rows import record_rows
from tests.support.record_writers import Recording
from tests.support.serving_site import Server, form
from tests.support.waiting import wait

pytestmark = pytest.mark.process


def impression(request, items='["i1"]'):
    return Impression(request, time.time(), "u", "1", "champion", "personal", 0, items, np.array([0.5]))


class Counted(Counter):
    def __call__(self, outcome, lists):
        self[outcome] += lists


@pytest.fixture
def recorders(tmp_path, monkeypatch):
    """Makes recorders of one file, and says the processes that each has started."""
    monkeypatch.setattr(record, "_RETRY_SECONDS", 0.001)
    made = []

    def recorder():
        counts, started = Counted(), []

        def start():
            started.append(WriterProcess(tmp_path / "feedback.db", 90.0))
            return started[-1]

        made.append(Recording(start, counts))
        return made[-1], counts, started

    yield recorder
    for one in made:
        one.close()


def test_a_process_of_low_priority_writes_and_is_small(recorders, tmp_path):
    recorder, counts, (process,) = recorders()
    assert record_rows(tmp_path / "feedback.db") == []  # the table is there
    assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert "numpy" not in Path(f"/proc/{process.pid}/maps").read_text()
    recorder.add(impression("r1"))
    again, counts_again, _ = recorders()
    again.add(impression("r1"))
    wait(lambda: counts["written"] == counts_again["written"] == 1, "the commits")
    assert record_rows(tmp_path / "feedback.db") == [("r1",)]


def test_a_list_of_any_length_goes_through(recorders, tmp_path):
    recorder, counts, _ = recorders()
    long = "[" + ",".join(['"ü\U0001f600"'] * 100_000) + "]"
    for number in range(3):
        recorder.add(impression(f"r{number}", long))
    wait(lambda: counts["written"] == 3, "the commit")
    assert record_rows(tmp_path / "feedback.db", "items") == [(long,)] * 3


def test_processes_that_are_killed_lose_no_list_and_write_none_twice(recorders, tmp_path):
    """Killed at any moment, one of two that write to the same file."""
    both = [recorders() for _ in range(2)]
    killed, done, names = set(), threading.Event(), []

    def serve(number, recorder):
        while not done.is_set():
            names.append(f"{number}-{len(names)}-{time.monotonic_ns()}")
            recorder.add(impression(names[-1]))
            time.sleep(0.0002)

    threads = [threading.Thread(target=serve, args=(number, one[0])) for number, one in enumerate(both)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(50):
            _, _, started = both[turn % 2]
            time.sleep(0.001 * (turn % 7))  # before, in or after the table, a message, a commit
            with suppress(ProcessLookupError):  # it has been waited for, and another one is started
                os.kill(started[-1].pid, signal.SIGKILL)
                killed.add(started[-1].pid)
            if turn % 5 == 4:
                before = len(names)
                wait(lambda b=before: sum(one[1]["written"] for one in both) > b, "lists that are written")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    wait(lambda: sum(one[1]["written"] for one in both) == len(names), "the rest")
    assert len(killed) > 20
    assert sorted(name for (name,) in record_rows(tmp_path / "feedback.db")) == sorted(names)
    assert sum((one[1] for one in both), Counter()) == {"written": len(names)}


def test_a_signal_to_all_processes_of_a_server_loses_no_list(tmp_path):
    server = Server(tmp_path / "serving", workers=1, kept_lists=0)
    server.point_at(form(tmp_path / "one"))
    asked = set()
    try:
        server.start()
        with requests.Session() as session:
            for number in range(40):
                asked.add(session.get(f"{server.address}/api/recommend/u{number % 24}").headers["x-request-id"])
        for pid in server.pids():  # as a service manager does
            os.kill(pid, signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
    finally:
        server.stop()
    assert {name for (name,) in record_rows(server.folder / "feedback.db")} == asked


def test_the_process_ends_with_a_worker_that_was_killed(tmp_path):
    server = Server(tmp_path / "serving", workers=1)
    server.point_at(form(tmp_path / "one"))
    try:
        server.start()
        server.get("api/recommend/u1")
        wait(lambda: len(server.pids()) == 2, "the process that writes")
        (worker,) = server.worker_pids()
        (writer,) = set(server.pids()) - {worker}
        os.kill(worker, signal.SIGKILL)
        wait(lambda: not Path(f"/proc/{writer}").exists(), "its end")
        wait(server.answers, "an answer")
        assert server.get("api/recommend/u1").status_code == 200
    finally:
        server.stop()
