"""A step that is told to stop stops, wherever the signal meets it, and is not stopped while it cleans up."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref

import mlflow
import pytest

from recsys.runtime.interruption import is_stop, uninterrupted
from recsys.tracking import runs
from steps.support import signals
from steps.support.entrypoint import run_step
from steps.support.signals import StopSignals
from tests.support.pipeline import PROJECT

BEYOND_LOAD = 600.0  # seconds


def told_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)  # a handler runs between two lines of Python


def wait_for_stop() -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("nested", [False, True])
def test_a_stop_waits_for_what_must_not_be_cut_off(nested, in_process):
    in_process.setattr(signals, "_GUARDED_SECONDS", BEYOND_LOAD)
    written = []
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:  # noqa: PT012  # it comes at the end of the block
        with uninterrupted():
            with uninterrupted() if nested else contextlib.nullcontext():
                told_to_stop()
                time.sleep(0.3)
            written.append("all")
        written.append("more")
    assert written == ["all"]
    assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_stop_in_a_decorated_function_waits_for_its_end(in_process):
    in_process.setattr(signals, "_GUARDED_SECONDS", BEYOND_LOAD)
    written = []

    @uninterrupted()
    def write():
        told_to_stop()
        written.append("all")

    with pytest.raises(KeyboardInterrupt), StopSignals():  # noqa: PT012
        write()
        written.append("more")
    assert written == ["all"]


def test_a_stop_does_not_wait_for_ever(in_process):
    in_process.setattr(signals, "_GUARDED_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, uninterrupted():  # noqa: PT012
        told_to_stop()
        wait_for_stop()
    assert stop.number == signal.SIGTERM
    with uninterrupted():  # nothing is left to be carried out
        pass


def test_a_stop_elsewhere_comes_at_once(in_process):
    written = []
    with pytest.raises(KeyboardInterrupt), StopSignals():  # noqa: PT012
        told_to_stop()
        time.sleep(20)
        written.append("all")
    assert written == []


class Dropping:
    """Is told to stop where Python drops the exception."""

    def __del__(self) -> None:
        told_to_stop()


def in_a_destructor():
    Dropping()


def in_a_callback():
    class Thing:
        pass

    thing = Thing()
    kept = weakref.ref(thing, lambda _reference: told_to_stop())
    del thing
    assert kept() is None


def in_code_that_goes_on():
    with contextlib.suppress(BaseException):
        told_to_stop()


@pytest.mark.parametrize("dropped", [in_a_destructor, in_a_callback, in_code_that_goes_on])
def test_a_stop_that_is_dropped_comes_again(dropped, in_process, capsys):
    in_process.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:  # noqa: PT012
        dropped()
        wait_for_stop()
    assert stop.number == signal.SIGTERM
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is sys.__unraisablehook__


def test_what_else_is_dropped_is_told(in_process, capsys):
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    in_process.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with StopSignals():
        Broken()
    assert "ValueError: broken" in capsys.readouterr().err


def test_a_stop_that_became_another_error_is_a_stop(in_process):
    with pytest.raises(KeyboardInterrupt) as caught, StopSignals():  # noqa: PT012
        try:
            told_to_stop()
        finally:
            raise ImportError("a part is missing")
    assert isinstance(caught.value.__cause__, ImportError)
    assert is_stop(caught.value.__cause__)


def test_cleaning_up_after_a_stop_is_not_stopped(in_process):
    in_process.setattr(signals, "_AGAIN_SECONDS", 0.01)
    reminded = []

    class Counting(StopSignals):
        def _hear(self, number, frame):
            reminded.append(number)
            super()._hear(number, frame)

    cleaned = False
    with pytest.raises(KeyboardInterrupt), Counting():  # noqa: PT012
        try:
            told_to_stop()
        finally:
            while len(reminded) < 5:
                time.sleep(0.01)
            cleaned = True
    assert cleaned


@pytest.mark.parametrize("error", [ValueError("one"), None])
def test_without_a_signal_nothing_is_a_stop(error, in_process):
    with pytest.raises(ValueError, match="one") if error else contextlib.nullcontext(), StopSignals() as stop:
        if error:
            raise error
    assert stop.number is None
    assert not is_stop(error)


def test_an_error_of_a_step_that_was_told_to_stop_is_told_as_the_stop(in_process, capsys):
    def step(_parameters):
        try:
            told_to_stop()
        except KeyboardInterrupt:
            raise OSError("cut off") from None

    with pytest.raises(SystemExit) as caught:
        run_step("history", step, [], connected=False)
    assert caught.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "history: stopped by SIGTERM\n"


def test_a_run_that_a_stop_meets_at_its_beginning_or_end_is_ended(in_process, store):
    """Wherever in the making and ending of a run the stop arrives: at each call of its client in turn."""
    in_process.setattr(signals, "_GUARDED_SECONDS", BEYOND_LOAD)
    mlflow.set_tracking_uri(store.uri)
    real = mlflow.MlflowClient
    for moment in ("create_run", "log_batch", "set_terminated"):
        method = getattr(real, moment)

        def cut(self, *arguments, method=method, **named):
            answer = method(self, *arguments, **named)
            told_to_stop()
            return answer

        with in_process.context() as patch:
            patch.setattr(real, moment, cut)
            with pytest.raises(KeyboardInterrupt), StopSignals(), runs.start_run(f"stopped at {moment}"):
                pass
        assert mlflow.active_run() is None
    found = {run.info.run_name: run.info.status for run in store.runs()}
    assert found == {
        "stopped at create_run": "KILLED",
        "stopped at log_batch": "KILLED",
        "stopped at set_terminated": "FINISHED",
    }


def test_a_run_ends_killed_where_the_stop_became_another_error(in_process, store):
    mlflow.set_tracking_uri(store.uri)
    with pytest.raises(KeyboardInterrupt), StopSignals(), runs.start_run("stopped"):  # noqa: PT012
        try:
            told_to_stop()
        except KeyboardInterrupt:
            raise ImportError("a part is missing") from None
    (run,) = store.runs()
    assert run.info.status == "KILLED"
    assert "error" not in run.data.tags


@pytest.mark.process
def test_a_stop_in_code_given_as_text_leaves_the_step_s_own_status(tmp_path):
    """Named tuples and data classes are made of such code; Python then ends with the signal instead of the status."""
    (tmp_path / "stopped.py").write_text(
        """
from steps.support.entrypoint import run_step
def step(parameters):
    exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(600)")
run_step("history", step, [], connected=False)
"""
    )
    paths = os.pathsep.join([str(tmp_path), str(PROJECT), str(PROJECT / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "stopped"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "history: stopped by SIGINT\n")
