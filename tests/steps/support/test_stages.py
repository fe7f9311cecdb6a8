"""The line that says how far a step is."""

import io
import sys
from types import SimpleNamespace

import pytest

from steps.support import stages


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def no_position(monkeypatch):
    monkeypatch.setattr(stages, "_position", "")


def test_a_terminal_sees_the_step_the_round_and_its_measure_and_then_nothing(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    stages.set_position(3, 8)
    with stages.stage("train bias") as stage:
        stage.report(41, {"train_rmse": 0.5, "validation_auc": 0.81024})
    shown = terminal.getvalue()
    assert "step 3 of 8: train bias, round 41, validation AUC 0.8102" in shown
    assert shown.endswith("\x1b[2K")  # the line is cleared


def test_it_sees_how_long_the_rounds_may_take_and_what_comes_after(monkeypatch):
    shown = []
    progress = SimpleNamespace(update=lambda task, description: shown.append(description))
    moments = iter([10.0, 14.0])
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    stage = stages.Stage("train bias", (progress, 0))
    stage.report(1, {}, left=9)  # no pace yet
    stage.report(3, {}, left=7)
    stage.begin("all rows")
    assert shown == ["train bias, round 1", "train bias, round 3, at most 14 s of rounds left", "train bias, all rows"]


def test_elsewhere_nothing_is_written(monkeypatch):
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with stages.stage("train bias") as stage:
        stage.report(1, {"validation_rmse": 1.0})
    assert written.getvalue() == ""


def test_the_line_goes_when_the_computation_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(ValueError, match="no"), stages.stage("evaluate"):
        raise ValueError("no")
    assert terminal.getvalue().endswith("\x1b[2K")
