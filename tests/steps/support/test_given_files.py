"""Paths and URLs that a user gives: what is none, or never ends, is one message."""

import pytest

from recsys.errors import InputError
from steps.support import entrypoint
from steps.support.entrypoint import data_folder, given_folder, given_path, parse, run_step


def test_a_home_of_nobody_is_told(monkeypatch):
    expected = "this machine has no user of the name behind ~ in '~nosuchuser/x'"
    with pytest.raises(InputError, match=f"parameter 'ratings': {expected}"):
        given_path(".", "~nosuchuser/x", "ratings")
    monkeypatch.setenv("RECSYS_DATA", "~nosuchuser/x")
    with pytest.raises(InputError, match=f"parameter 'RECSYS_DATA': {expected}"):
        data_folder()


@pytest.mark.parametrize("below", [".", "in/it"])
def test_a_folder_to_write_to_that_is_a_file_is_told_with_its_place(below, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert given_folder(str(tmp_path), f"new/{below}", "output") == tmp_path / "new" / below
    with pytest.raises(InputError) as refused:
        given_folder(str(tmp_path), f"file/{below}", "output")
    expected = f"a folder is needed, got 'file/{below}', but {file} is a file; name another"
    assert str(refused.value) == f"parameter 'output': {expected}"


def test_a_file_of_parameters_is_a_file_and_ends(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"parameter 'params': .*it is no regular file"):
        parse("train", ["--params=/dev/zero"])
    (tmp_path / "long.json").write_text("[" + "1," * 50)
    monkeypatch.setattr(entrypoint, "_LONGEST_FILE", 10)
    with pytest.raises(InputError, match=r"parameter 'params': .*it has more than"):
        parse("train", [f"--params={tmp_path / 'long.json'}"])


def test_a_tracking_uri_that_reads_other_files_is_refused(in_process, capsys):
    in_process.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://a:s3cret@127.0.0.1/db?read_default_file=/etc/passwd")
    with pytest.raises(SystemExit):
        run_step("history", lambda parameters: None, [])
    said = capsys.readouterr().err
    assert "MLFLOW_TRACKING_URI: a URL without the option 'read_default_file' is needed" in said
    assert "s3cret" not in said


def test_what_a_full_disk_ends_says_nothing_of_statements(in_process, store, capsys):
    from mlflow.exceptions import MlflowException

    def fail(parameters):
        raise MlflowException("database or disk is full\n[SQL: INSERT INTO tags VALUES (?)]\n[parameters: ('s3cret',)]")

    in_process.setenv("MLFLOW_TRACKING_URI", store.uri)
    with pytest.raises(SystemExit):
        run_step("history", fail, [f"--folder={store.home}"])
    said = capsys.readouterr().err
    assert "database or disk is full; `make doctor`" in said
    assert "SQL" not in said
