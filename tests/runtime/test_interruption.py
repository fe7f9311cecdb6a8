import threading

import pytest

from recsys.runtime import interruption
from recsys.runtime.interruption import interrupt, interruptible, is_guarded, uninterrupted
from recsys.runtime.retry import retry_on


class StopError(Exception):
    pass


def stop():
    raise StopError


def test_outside_a_block_a_stop_is_carried_out_at_once():
    assert not is_guarded()
    with pytest.raises(StopError):
        interrupt(stop)


def test_a_stop_waits_for_the_end_of_the_outermost_block():
    done = []
    with pytest.raises(StopError):  # noqa: PT012
        with uninterrupted():
            with uninterrupted():
                assert not interrupt(stop)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]
    with uninterrupted():  # it was carried out once
        pass


def test_a_stop_that_waited_follows_the_error_of_its_block():
    with pytest.raises(StopError) as caught, uninterrupted():  # noqa: PT012
        interrupt(stop)
        raise ValueError("broken")
    assert isinstance(caught.value.__context__, ValueError)


def test_a_stop_that_must_not_wait_is_carried_out_inside_a_block_and_once():
    with pytest.raises(StopError), uninterrupted():  # noqa: PT012
        interrupt(stop)
        interrupt(stop, waits=False)
    assert not is_guarded()
    with uninterrupted():
        pass


def test_a_stop_arrives_in_an_interruptible_part_of_a_block():
    done = []
    with pytest.raises(StopError), uninterrupted():  # noqa: PT012
        try:
            with interruptible():
                assert not is_guarded()
                interrupt(stop)
                done.append("part")
        finally:
            assert is_guarded()
            done.append("end")
    assert done == ["end"]


def test_a_stop_that_waits_arrives_where_an_interruptible_part_begins():
    done = []
    with pytest.raises(StopError), uninterrupted():  # noqa: PT012
        interrupt(stop)
        with interruptible():
            done.append("part")
    assert done == []
    assert not is_guarded()


def test_a_block_of_another_thread_holds_nothing_up():
    entered, leave = threading.Event(), threading.Event()

    def work():
        with uninterrupted():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    try:
        with pytest.raises(StopError):
            interrupt(stop)
    finally:
        leave.set()
        thread.join()


def test_an_attempt_is_not_cut_off_and_a_pause_between_two_is(monkeypatch):
    attempts = []

    @retry_on(lambda error: isinstance(error, OSError), 60)
    def call():
        attempts.append(is_guarded())
        raise OSError("away")

    def sleep(_seconds):
        assert not is_guarded()
        interrupt(stop)

    monkeypatch.setattr("tenacity.nap.time.sleep", sleep)
    with pytest.raises(StopError):
        call()
    assert attempts == [True]


def test_what_passes_is_tried_again_and_the_last_error_is_raised(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    errors = [OSError("one"), OSError("two"), ValueError("three")]

    @retry_on(lambda error: isinstance(error, OSError), 60)
    def call():
        raise errors.pop(0)

    with pytest.raises(ValueError, match="three"):
        call()
    assert interruption.is_guarded() is False
