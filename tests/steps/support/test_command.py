"""The command `recsys`."""

import subprocess
import sys
from pathlib import Path

import pytest

from steps.support import command
from steps.support.parameters import STEPS

PROJECT = Path(__file__).resolve().parents[3]


def test_without_a_step_all_are_listed_with_what_they_do(capsys):
    command.main([])
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.partition("steps:\n")[2].splitlines()] == list(STEPS)
    assert "  train      a dataset and a family in, a registered version out." in said


def test_a_misspelt_step_is_asked_about(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["evalute"])
    assert ended.value.code == 2
    assert "no step 'evalute' (did you mean 'evaluate'?)" in capsys.readouterr().err


def test_which_steps_connect_themselves_is_as_in_their_files():
    texts = {name: (PROJECT / "steps" / f"{name}.py").read_text(encoding="utf-8") for name in STEPS}
    assert {name for name, text in texts.items() if "connected=False" in text} == set(command.CONNECT_THEMSELVES)


def test_parameters_reach_the_step_and_runs_are_kept_where_it_is_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit):
        command.main(["prepare", "--ratings="])
    assert "error: prepare: parameter 'ratings'" in capsys.readouterr().err
    from steps.support.entrypoint import tracking_uri

    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.process
def test_the_command_needs_only_the_checkout(tmp_path):
    code = "from steps.support.command import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: recsys STEP")
