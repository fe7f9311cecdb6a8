import threading

import pytest

from recsys.runtime import threads


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(threads, "available_threads", lambda: 3)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100])
def test_workers_do_every_chunk_once(n):
    done, lock = [], threading.Lock()

    def work(chunk):
        with lock:
            done.append(chunk)

    with threads.workers("cpu") as each:
        each(work, list(range(n)))
    assert sorted(done) == list(range(n))


def test_workers_raise_what_a_chunk_raised():
    def work(chunk):
        if chunk == 7:
            raise ValueError("chunk 7")

    with threads.workers("cpu") as each, pytest.raises(ValueError, match="chunk 7"):
        each(work, list(range(9)))
