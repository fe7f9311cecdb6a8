"""The record in the hands of a process of its own: what it is asked is written once, however the process ends."""

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import requests

from recsys.serving import record
from recsys.serving.record import Impression, Recorder
from recsys.serving.record_table import WriteError
from recsys.serving.record_writer import WriterProcess
from tests.support.serving_site import Server, form
from tests.support.waiting import wait

pytestmark = pytest.mark.process


def impression(request, items='["i1"]'):
    return Impression(request, time.time(), "u", "1", "champion", "personal", 0, items, np.array([0.5]))


def row(request, age=0.0):
    return (request, time.time() - age, "u", "1", "champion", "personal", 0, "[]", b"", None, None, None, None, None)


def rows(path, columns="request"):
    with sqlite3.connect(path) as database:
        return database.execute(f"select {columns} from served order by id").fetchall()


class Counted(Counter):
    def __call__(self, outcome, lists):
        self[outcome] += lists


@pytest.fixture
def writer(tmp_path):
    found = WriterProcess(tmp_path / "feedback.db")
    yield found
    found.close()


def test_a_process_of_low_priority_writes_what_it_is_given_and_deletes_what_is_old(writer, tmp_path):
    writer.add([row("old", age=100), row("new"), row("new")])
    assert os.getpriority(os.PRIO_PROCESS, writer.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert rows(tmp_path / "feedback.db") == [("old",), ("new",)]
    assert writer.prune(time.time() - 50, 10) == 1
    assert rows(tmp_path / "feedback.db") == [("new",)]
    assert "numpy" not in Path(f"/proc/{writer.pid}/maps").read_text()  # it is small


def test_a_list_of_any_length_goes_through(writer, tmp_path):
    long = "[" + ",".join(['"ü\U0001f600"'] * 100_000) + "]"
    writer.add([(*row("long")[:7], long, *row("")[8:])])
    assert rows(tmp_path / "feedback.db", "items") == [(long,)]


def test_what_cannot_be_written_is_told_and_the_process_stays(tmp_path):
    (tmp_path / "feedback.db").mkdir()  # a file that cannot be opened
    writer = WriterProcess(tmp_path / "feedback.db")
    try:
        with pytest.raises(WriteError, match="OperationalError: unable to open database file"):
            writer.add([row("r1")])
        pid = writer.pid
        (tmp_path / "feedback.db").rmdir()
        writer.add([row("r1")])
        assert writer.pid == pid
        assert rows(tmp_path / "feedback.db") == [("r1",)]
    finally:
        writer.close()


def test_processes_that_are_killed_lose_no_list_and_write_none_twice(tmp_path, monkeypatch):
    """Killed at any moment, and asked for the same again, with another writer at the same file."""
    monkeypatch.setattr(record, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(record, "_WRITE_SECONDS", 0.001)
    path, counts = tmp_path / "feedback.db", [Counted(), Counted()]
    writers = [WriterProcess(path) for _ in counts]
    recorders = [Recorder(writer, 90, count) for writer, count in zip(writers, counts, strict=True)]
    killed, done, names = set(), threading.Event(), []

    def serve(number, recorder):
        while not done.is_set():
            names.append(f"{number}-{len(names)}-{time.monotonic_ns()}")
            recorder.add(impression(names[-1]))
            time.sleep(0.0002)

    threads = [threading.Thread(target=serve, args=pair) for pair in enumerate(recorders)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(20):
            writer, count = writers[turn % 2], counts[turn % 2]
            before = count["written"]
            wait(lambda c=count, b=before: c["written"] > b, "a list that is written")
            pid = writer.pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        before = [count["written"] for count in counts]
        wait(lambda: all(c["written"] > b for c, b in zip(counts, before, strict=True)), "lists after the last kill")
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for recorder in recorders:
            recorder.close()
    assert len(killed) > 10
    found = [name for (name,) in rows(path)]
    assert sorted(found) == sorted(names)
    assert sum(counts, Counter()) == {"written": len(names)}


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
    assert {name for (name,) in rows(server.folder / "feedback.db")} == asked


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
