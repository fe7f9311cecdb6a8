import itertools
import json
import sqlite3
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from recsys.serving import record, record_table, record_writer
from recsys.serving.record import Impression
from recsys.serving.record_blocks import MOST_LISTS
from tests.support.record_rows import record_rows
from tests.support.record_writers import Recording, WriterThread
from tests.support.waiting import wait

DAY = 86_400.0


def impression(request, moment=None, items=("i2", "i1")):
    likes = np.linspace(0.9, 0.5, len(items))
    names = json.dumps(items, separators=(",", ":"))
    return Impression(request, moment or time.time(), "u", "1", "champion", "personal", 0, names, likes)


class Counted(Counter):
    def __call__(self, outcome, lists):
        self[outcome] += lists


@pytest.fixture
def counts():
    return Counted()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "feedback.db"


def test_a_list_is_written_as_it_was_answered(path, counts):
    recorder = Recording(lambda: WriterThread(path), counts)
    recorder.add(impression("r1"))
    recorder.close()
    request, items, likes = record_rows(path, "request, items, likes")[0]
    assert (request, json.loads(items)) == ("r1", ["i2", "i1"])
    assert np.frombuffer(likes, "<f4").tolist() == pytest.approx([0.9, 0.5])
    assert counts == {"written": 1}


def test_many_lists_are_written_whole_and_in_their_order(path, counts, monkeypatch):
    free = threading.Event()
    real = record_table._commit

    def later(*arguments):
        free.wait()
        return real(*arguments)

    monkeypatch.setattr(record_table, "_commit", later)
    recorder = Recording(lambda: WriterThread(path), counts)
    for number in range(2500):  # more than one block
        recorder.add(impression(f"r{number}", items=(f"i{number}",)))
    free.set()
    recorder.close()
    assert record_rows(path, "request, items") == [(f"r{number}", f'["i{number}"]') for number in range(2500)]
    assert counts == {"written": 2500}


def test_lists_of_a_trial_are_rows_and_all_others_blocks(path, counts):
    recorder = Recording(lambda: WriterThread(path), counts)
    for number in range(150):  # more than one statement adds rows
        recorder.add(impression(f"r{number}")._replace(trial="t" if number % 3 else None, seconds=0.5, failed=False))
    recorder.close()
    assert counts == {"written": 150}
    with sqlite3.connect(path) as reading:
        of_trial = reading.execute("select request, trial, seconds, failed from served order by id").fetchall()
    assert of_trial == [(f"r{number}", "t", 0.5, 0) for number in range(150) if number % 3]
    others = [(f"r{number}",) for number in range(0, 150, 3)]
    assert record_rows(path) == [(row[0],) for row in of_trial] + others


@pytest.mark.parametrize("trial", [None, "t"])
def test_what_has_gathered_goes_into_several_commits(path, counts, monkeypatch, trial):
    free, sizes = threading.Event(), []
    real = record_table._commit

    def later(connection, statements):
        free.wait()
        changed = real(connection, statements)
        sizes.append(changed)
        return changed

    monkeypatch.setattr(record_table, "_commit", later)
    recorder = Recording(lambda: WriterThread(path), counts)
    for number in range(6000):
        recorder.add(impression(f"r{number}")._replace(trial=trial))
    free.set()
    recorder.close()
    assert counts == {"written": 6000}
    most_blocks, most_rows = record_writer._MOST_MESSAGES, record_writer._MOST_ROWS + MOST_LISTS
    assert max(sizes) <= (most_rows if trial else most_blocks)
    assert len(record_rows(path)) == 6000


def test_lists_that_come_while_others_are_written_wait_for_the_next_turn(path, counts, monkeypatch):
    real, done = record_table._commit, []

    def commit(connection, statements):
        done.append(statements[0][0].split()[0])
        if done.count("insert") == 1 and done[-1] == "insert":
            recorder.add(impression("r1"))
        return real(connection, statements)

    monkeypatch.setattr(record_writer, "_PRUNE_SECONDS", 0.0)  # old lists are deleted between two turns
    monkeypatch.setattr(record_table, "_commit", commit)
    recorder = Recording(lambda: WriterThread(path), counts)
    recorder.add(impression("r0"))
    wait(lambda: counts["written"] == 2, "the next turn")
    recorder.close()
    turns = [name for name, _ in itertools.groupby(done)]
    assert turns[turns.index("insert") :][:3] == ["insert", "delete", "insert"]
    assert record_rows(path) == [("r0",), ("r1",)]


def test_a_list_counts_once_by_its_request(path, counts):
    for _ in range(2):
        recorder = Recording(lambda: WriterThread(path), counts)
        recorder.add(impression("r1"))
        recorder.close()
    assert record_rows(path) == [("r1",)]


def test_what_cannot_be_written_is_tried_again_and_counts_once(path, counts, monkeypatch):
    real, failed = record_table._commit, []

    def after_the_commit(*arguments):
        changed = real(*arguments)
        if arguments[1][0][0].startswith("insert") and not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        return changed

    monkeypatch.setattr(record_table, "_commit", after_the_commit)
    monkeypatch.setattr(record, "_RETRY_SECONDS", 0.01)
    recorder = Recording(lambda: WriterThread(path), counts)
    recorder.add(impression("r1"))
    wait(lambda: counts["written"], "the second try")
    recorder.close()
    assert failed
    assert record_rows(path) == [("r1",)]
    assert counts == {"written": 1}
    assert recorder.problem == ""


def test_too_many_that_wait_are_dropped_and_counted(path, counts, monkeypatch):
    free = threading.Event()
    real = record_table._commit

    def slow(*arguments):
        free.wait()
        return real(*arguments)

    monkeypatch.setattr(record_table, "_commit", slow)
    recorder = Recording(lambda: WriterThread(path), counts, most_waiting=5)
    for number in range(8):
        recorder.add(impression(f"r{number}"))
    assert counts["dropped"] == 3
    free.set()
    recorder.close()
    assert record_rows(path) == [(f"r{number}",) for number in range(5)]
    assert counts == {"dropped": 3, "written": 5}


def test_what_cannot_be_written_at_the_end_is_counted_as_dropped(path, counts, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(record_table, "_commit", full)
    recorder = Recording(lambda: WriterThread(path), counts)
    recorder.add(impression("r1"))
    recorder.close()
    assert counts == {"dropped": 1}
    assert "disk is full" in recorder.problem


def test_a_worker_starts_and_answers_where_the_file_cannot_be_opened_yet(path, counts, monkeypatch):
    monkeypatch.setattr(record, "_RETRY_SECONDS", 0.01)
    path.mkdir()
    recorder = Recording(lambda: WriterThread(path), counts)
    assert recorder.problem == "OperationalError: unable to open database file"
    recorder.add(impression("r1"))
    path.rmdir()
    wait(lambda: counts["written"] == 1, "the file")
    assert recorder.problem == ""
    recorder.close()
    assert record_rows(path) == [("r1",)]


def test_what_came_in_part_is_not_written(path):
    writer = WriterThread(path)
    record_writer.send(writer.asked, record.message([impression("r1")]))
    writer.asked.write((1_000).to_bytes(8, "little") + b"half")
    writer.asked.close()
    assert [record_writer.receive(writer.said) for _ in range(2)] == [0, 1]
    writer.close()
    assert record_rows(path) == [("r1",)]


def test_lists_older_than_the_retention_are_deleted(path, counts):
    now = time.time()
    recorder = Recording(lambda: WriterThread(path, 7), counts)
    for number, age in enumerate((8, 6, 20, 0)):
        recorder.add(impression(f"{age} days", now - age * DAY))
        recorder.add(impression(f"{age} days, trial", now - age * DAY)._replace(trial="t"))
        wait(lambda most=2 * number: counts["written"] > most, "a block of its own")
    recorder.close()
    again = Recording(lambda: WriterThread(path, 7), counts)
    again.close()
    assert record_rows(path) == [("6 days, trial",), ("0 days, trial",), ("6 days",), ("0 days",)]


def test_lists_may_come_from_several_threads_while_others_are_handed_over(path, counts):
    recorder = Recording(lambda: WriterThread(path), counts)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def add(name):
            for number in range(2000):
                recorder.add(impression(f"{name}-{number}"))

        threads = [threading.Thread(target=add, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    recorder.close()
    found = [request for (request,) in record_rows(path)]
    assert sorted(found) == sorted(f"{name}-{number}" for name in "abc" for number in range(2000))
    assert counts == {"written": 6000}
    assert not recorder.problem
