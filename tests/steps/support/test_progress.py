import sys
from collections import namedtuple

import pytest

from steps.support.progress import ProgressDisplay

SearchProgress = namedtuple("SearchProgress", "done pruned failed running target best")
Trial = namedtuple("Trial", "number value params")
STANDS = SearchProgress(3, 1, 0, 2, 8, Trial(2, 0.71234, {"learning_rate": 0.0123456, "bootstrap": True}))


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of stdout; called in the test, since fixtures see another stdout."""

    def make(columns=60):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(columns))

    return make


def test_a_terminal_has_one_line_that_fits(terminal, capsys):
    terminal()
    ProgressDisplay("auc").status(lambda: STANDS)
    shown = capsys.readouterr().out
    assert shown == "\r\x1b[K4 of 8 trials, 1 pruned, 0 failed, best 0.7123 (learning_r…"
    assert len(shown.removeprefix("\r\x1b[K")) == 59


def test_a_wide_terminal_has_it_whole(terminal, capsys):
    terminal(200)
    ProgressDisplay("auc").status(lambda: STANDS)
    assert capsys.readouterr().out.endswith("best 0.7123 (learning_rate=0.01235, bootstrap=true)")


def test_a_worker_leaves_the_line_to_the_process_that_started_it(terminal, capsys):
    terminal()
    display = ProgressDisplay("auc", shared=True)
    display.status(lambda: STANDS)
    display.end()
    assert capsys.readouterr().out == ""


def test_where_there_is_no_terminal_nobody_asks(capsys):
    display = ProgressDisplay("auc")
    display.status(lambda: pytest.fail("it costs queries"))
    display.end()
    assert capsys.readouterr().out == ""
