"""What is told of measured speeds; the measuring itself is `make bench-smoke`."""

import json

import pytest

from bench import smoke


def test_what_has_fallen_by_a_third_is_told_with_its_share():
    known = {"fast": 3.0, "slow": 3.0, "even": 3.0}
    told = smoke.warnings_of({"fast": 9.0, "slow": 1.9, "even": 2.1}, known)
    assert [line.partition(" in ")[0] for line in told] == ["slow: 63% of its speed"]


def test_what_has_no_figure_is_told_with_the_command_that_writes_it():
    assert smoke.warnings_of({"new": 1.0}, {}) == ["new: no figure in smoke.json; python -m bench.smoke --record"]


def test_a_work_s_speed_is_the_reference_s_time_over_its_own(monkeypatch):
    clock = iter([0.0, 9.0] + [0.0, 2.0, 2.0, 6.0] * smoke._ROUNDS)
    monkeypatch.setattr(smoke.time, "process_time", lambda: next(clock))
    assert smoke.measure({"reference": lambda: None, "work": lambda: None}) == {"work": 0.5}


@pytest.mark.simulation
def test_every_work_is_one_of_which_a_figure_is_written_down(tmp_path):
    known = json.loads(smoke.FIGURES.read_text(encoding="utf-8"))
    assert ["reference", *known] == list(smoke.make_works(tmp_path))
