import errno
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from recsys.errors import InputError
from recsys.models.base.capabilities import family_names
from recsys.runtime.interruption import is_guarded
from steps.support.entrypoint import data_folder, parse, run_step
from steps.support.parameters import STEPS
from tests.support.pipeline import COLUMNS, PROJECT, write_sample

DESCENT = "--family=matrix_factorization"


def test_a_value_stands_behind_an_equals_sign_or_a_space():
    spaced, _ = parse("prepare", ["--ratings", "a b.csv", "--test_size", "0.3"])
    joined, _ = parse("prepare", ["--ratings=a b.csv", "--test_size=0.3"])
    assert spaced == joined
    assert (joined.ratings, joined.test_size) == ("a b.csv", 0.3)


def test_a_value_may_hold_an_equals_sign_and_be_empty():
    assert parse("prepare", ["--ratings=a=b.csv"])[0].ratings == "a=b.csv"
    assert parse("evaluate", ["--ratings="])[0].ratings == ""


@pytest.mark.parametrize("arguments", [["--min_rating=-10"], ["--min_rating", "-10"]])
def test_a_negative_value_is_a_value(arguments):
    assert parse("prepare", arguments)[0].min_rating == -10


def test_train_hands_a_family_its_own_parameters():
    parameters, config = parse("train", ["--family=random_forest", "--n_estimators=7", "--max_depth=none", "--seed=1"])
    assert (parameters.family, parameters.seed) == ("random_forest", 1)
    assert (config.n_estimators, config.max_depth) == (7, None)


@pytest.mark.parametrize("name", STEPS)
def test_defaults_are_what_no_argument_gives(name):
    assert parse(name, [])[0] == STEPS[name]()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("prepare", ["--seed=1", "--seed=2"], "parameter 'seed': given twice, '1' and '2'; give it once"),
        ("prepare", ["--seed"], "parameter 'seed': a value is needed behind its name; write --seed=value"),
        ("prepare", ["my.csv"], "parameters are written --name=value, got 'my.csv'; see --help"),
        ("prepare", ["--"], "parameters are written --name=value, got '--'; see --help"),
        ("prepare", ["-x", "1"], "parameters are written --name=value, got '-x'; see --help"),
        ("prepare", ["--sed=1"], "unknown parameter 'sed' (did you mean 'seed'?); known are: ratings, "),
        ("tune", ["--learning_rate=1"], "unknown parameter 'learning_rate'; known are: "),
        ("tune", ["--family=svd"], "parameter 'family': one of bayesian_mf, bias, "),
        ("train", ["--family=svd"], "got 'svd'"),
        ("train", ["--family=bias", "--epochs=3"], "(epochs belongs to family matrix_factorization)"),
        (
            "train",
            ["--family=bias", "--dampin=3"],
            "for family bias (did you mean 'damping'?); known are: ratings, ",
        ),
        (
            "train",
            [DESCENT, "--learning_rate=abc"],
            "parameter 'learning_rate': expected a valid number, got 'abc' (step ",
        ),
        ("train", [DESCENT, "--epochs=0"], "parameter 'epochs': expected greater than or equal to 1, got '0'"),
        ("train", [DESCENT, "--epochs=1.5"], "parameter 'epochs': expected a valid integer, got '1.5'"),
        ("train", [DESCENT, "--learning_rate=nan"], "parameter 'learning_rate': expected a finite number, got 'nan'"),
        ("train", ["--refit=maybe"], "parameter 'refit': expected a valid boolean, got 'maybe'"),
        ("prepare", ["--test_size=1.5"], "parameter 'test_size': expected less than 1, got '1.5'"),
        ("prepare", ["--split=kfold"], "parameter 'split': expected 'hash', 'random' or 'time', got 'kfold'"),
        ("prepare", ["--min_rating=low"], "'min_rating': expected a valid number or 'positive' or 'none', got 'low'"),
        ("prepare", ["--seed=-1"], "parameter 'seed': expected greater than or equal to 0, got '-1'"),
        ("prepare", ["--test_size=2", "--seed=x"], "; parameter 'seed': expected a valid integer, got 'x'"),
        ("promote", ["--max_rmse=inf"], "parameter 'max_rmse': expected a finite number, got 'inf'"),
        (
            "promote",
            ["--model_name=a/b"],
            "parameter 'model_name': expected a name without / : \\ or quotes, got 'a/b'",
        ),
        ("evaluate", ["--version=0"], "parameter 'version': expected greater than or equal to 1, got '0'"),
        ("main", ["--families=bias,svd"], "parameter 'families': expected names out of bayesian_mf, bias, "),
        ("main", ["--families=bias,bias"], "each once"),
        ("main", ["--families="], "parameter 'families': expected names out of bayesian_mf, bias, "),
    ],
)
def test_what_cannot_be_used_is_named(name, arguments, message):
    with pytest.raises(InputError) as caught:
        parse(name, arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STEPS)
def test_help_lists_every_parameter(name, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(name, ["--ratings=x", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{key} VALUE" in shown for key in STEPS[name].model_fields)


def test_help_of_train_lists_the_parameters_of_every_family(capsys):
    with pytest.raises(SystemExit):
        parse("train", ["-h"])
    shown = capsys.readouterr().out
    assert all(f"parameters of family {family}" in shown for family in family_names())
    assert "--n_estimators" in shown
    assert "--learning_rate" in shown
    assert shown.count("--embedding_size VALUE") == 2


@pytest.mark.process
def test_a_wrong_parameter_is_told_before_anything_slow_is_imported():
    code = """
import sys
from steps import evaluate, main, prepare, promote, train, tune
from steps.support.entrypoint import parse
for name, argument in (
    ("train", "--epochs=0"), ("train", "--nope=1"), ("train", "--family=x"), ("main", "--families=x"),
    ("tune", "--family=x"), ("evaluate", "--version=x"), ("promote", "--max_rmse=x"),
):
    try:
        parse(name, [argument])
    except ValueError as error:
        print(error)
print(*{"torch", "mlflow", "sklearn", "matplotlib", "optuna", "scipy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    *told, imported = done.stdout.split("\n")[:-1]
    assert len(told) == 7
    assert imported == ""


def test_data_lies_in_one_place_outside_the_project(monkeypatch, tmp_path):
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    assert not data_folder().is_relative_to(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", "here")
    assert data_folder() == tmp_path / "here"
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # naming a folder does not make it


def test_no_statement_of_a_step_can_be_cut_off(in_process, step, store):
    """Every statement that MLflow or Optuna sends from the main thread belongs to code that a stop does not cut off."""
    write_sample(store.home / "my.csv")
    seen, unguarded = [], []

    def watch(_connection, _cursor, statement, *_rest):
        seen.append(statement)
        if not is_guarded():
            ours = [frame for frame in traceback.extract_stack() if str(PROJECT) in frame.filename]
            unguarded.append((statement[:60], *(f"{Path(f.filename).name}:{f.lineno}" for f in ours[-4:-1])))

    data = {"family": "bias", "ratings": "my.csv", **COLUMNS}
    event.listen(Engine, "before_cursor_execute", watch)
    try:
        step("train", **data)
        step("evaluate", version=1)
        step("promote")
        step("tune", **data, trials=2)
        step("promote")
        step("rollback", version=1)
        step("history")
        step("doctor")
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
    assert len(seen) > 100
    assert sorted(set(unguarded)) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, "; make room on the disk, `make doctor` says how much each has"), (errno.EIO, "")],
)
def test_a_full_disk_is_told_with_what_to_do_whoever_wrote(number, told, in_process, capsys):
    def write(_):
        raise OSError(number, "Error writing bytes to file")

    with pytest.raises(SystemExit) as ended:
        run_step("doctor", write, [], connected=False)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: doctor: OSError: [Errno {number}] Error writing bytes to file{told}\n"


@pytest.mark.parametrize(
    ("kept", "chosen", "told"),
    [
        ("data", "data", "; data is kept there: set RECSYS_DATA to a folder that can be written"),
        ("x", "data", ""),
        ("x", "s3://No Bucket", ""),
    ],
)
def test_a_data_folder_that_cannot_be_written_is_told_with_what_to_do(
    kept, chosen, told, tmp_path, in_process, capsys, monkeypatch
):
    monkeypatch.setenv("RECSYS_DATA", chosen if "://" in chosen else str(tmp_path / chosen))
    (tmp_path / kept).touch()

    def write(_):
        (tmp_path / kept / "prepared").mkdir()

    with pytest.raises(SystemExit):
        run_step("doctor", write, [], connected=False)
    assert capsys.readouterr().err.endswith(f"Not a directory: '{tmp_path / kept / 'prepared'}'{told}\n")


@pytest.mark.parametrize("threads", ["0", "-1", "all", ""])
def test_a_number_of_threads_that_is_none_is_told_before_anything_is_done(threads, in_process, capsys, monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    with pytest.raises(SystemExit):
        run_step("doctor", lambda _: print("done"), [], connected=False)
    said = capsys.readouterr()
    assert said.out == ""
    expected = f"a number of threads from 1 on is needed, got {threads!r}; unset it to use all cores"
    assert said.err == f"error: doctor: NUMBA_NUM_THREADS: {expected}\n"
