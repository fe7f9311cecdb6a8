import pytest

from recsys.errors import InputError
from steps.support import repeat as repeating
from steps.support.repeat import repeat


class EndError(BaseException):
    """Ends a service in a test."""


def counted(failures: set[int], last: int):
    """Work that fails in some rounds and ends the service in the last."""
    rounds = []

    def work() -> int:
        rounds.append(len(rounds))
        if len(rounds) > last:
            raise EndError
        if rounds[-1] in failures:
            raise InputError(f"round {rounds[-1]}")
        return rounds[-1]

    return work, rounds


def test_work_is_done_once_and_what_fails_at_first_ends_it():
    assert repeat(counted(set(), 5)[0], None) == 0
    for every in (None, 60.0):
        with pytest.raises(InputError):
            repeat(counted({0}, 5)[0], every)


def test_a_service_goes_on_after_a_later_round_that_failed(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(repeating.time, "sleep", slept.append)
    work, rounds = counted({1}, 3)
    with pytest.raises(EndError):
        repeat(work, 60.0)
    assert rounds == [0, 1, 2, 3]
    assert all(0 < seconds <= 60 for seconds in slept)
    assert capsys.readouterr().out == (
        "note: this look found nothing (InputError: round 1); the next one is at its time\n"
    )
