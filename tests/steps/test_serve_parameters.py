"""What `serve` refuses before it listens."""

import sys

import pytest

from recsys.errors import InputError
from steps import serve
from steps.support import feedback_database
from steps.support.parameters import ServeParameters


def test_the_team_s_database_is_mysql_and_its_password_is_on_no_command_line(monkeypatch):
    monkeypatch.delenv("RECSYS_FEEDBACK_DATABASE", raising=False)
    assert feedback_database.find_url("") == ""
    with pytest.raises(InputError, match="a password on a command line") as told:
        feedback_database.find_url("mysql+pymysql://me:s3cret@host/recsys")
    assert "s3cret" not in str(told.value)
    for wrong in ("sqlite:///x.db", "mysql+pymysql://host", "host:3306", "mysql+pymysql:///recsys"):
        with pytest.raises(InputError, match=r"parameter 'database': a URL such as mysql\+pymysql://"):
            feedback_database.find_url(wrong)
    monkeypatch.setenv("RECSYS_FEEDBACK_DATABASE", "postgresql://me:s3cret@host/x")
    with pytest.raises(InputError, match="RECSYS_FEEDBACK_DATABASE: a URL") as told:
        feedback_database.find_url("")
    assert "s3cret" not in str(told.value)
    monkeypatch.setenv("RECSYS_FEEDBACK_DATABASE", "mysql+pymysql://me:s3cret@host/recsys")
    assert feedback_database.find_url("").endswith("@host/recsys")


def test_a_graph_needs_its_packages_and_reads_no_feature_store(tmp_path, monkeypatch):
    given = {"folder": str(tmp_path), "port": 0, "runtime": "onnx"}
    with pytest.raises(InputError, match="parameters 'feature_store' and 'runtime': a graph reads no feature store"):
        serve.serve(ServeParameters(**given, feature_store="features"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"ONNX needs onnxruntime.* pip install -r src/recsys/export/requirements"):
        serve.serve(ServeParameters(**given))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_one_server_s_and_one_that_can_be_written(tmp_path):
    given = {"folder": str(tmp_path), "port": 0}
    claim = serve._claim(tmp_path / "serving" / "recsys")
    with pytest.raises(InputError, match=r"parameter 'store': .*/serving/recsys is another server's, which runs; stop"):
        serve.serve(ServeParameters(**given))
    claim.release()
    serve._claim(tmp_path / "serving" / "recsys").release()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"parameter 'store': a folder that can be written .*/file/recsys .*Not a dir"):
        serve.serve(ServeParameters(**given, store="file"))


def test_a_wrong_table_of_titles_is_told_at_once(write, tmp_path):
    write("item_id,name\n1,x\n", "items.csv")
    with pytest.raises(InputError, match=r"items\.csv: column 'title' is needed, got item_id, name"):
        serve._Registry(ServeParameters(folder=str(tmp_path), items="items.csv"))
