"""What a user can get wrong: one line that says what and where, a status that is not 0, and nothing half written."""

import gzip
import shutil
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from recsys.tracking import connection
from tests.support.pipeline import COLUMNS, PROJECT, grid, write_csv

GOOD = [*grid(), ("u0", "i99", 5), ("u1", "i99", 1)]


@pytest.fixture
def refused(store, step, capsys):
    """Runs a step that must be refused and returns its message; checks what every refusal has in common."""

    def run(name: str, **parameters: object) -> str:
        before, runs_before = store.contents(), len(store.runs())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            step(name, **parameters)
        assert caught.value.code == 1
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, shown
        message = shown.removesuffix("\n")
        assert message.startswith(f"error: {name}: ")
        assert "Traceback" not in message
        assert store.contents() == before
        new = store.runs()[: len(store.runs()) - runs_before]
        assert {run.info.status for run in new} <= {"FAILED"}
        assert all(run.data.tags["error"].startswith("InputError: ") for run in new)
        return message

    return run


def _bytes(content: bytes):
    return lambda path: path.write_bytes(content)


def _text(content: str):
    return lambda path: path.write_text(content, encoding="utf-8")


def _rows(rows, header="user_id,item_id,rating"):
    return lambda path: write_csv(path, rows, header)


FILES = {
    "empty": (_bytes(b""), "my.csv: the file is empty"),
    "header only": (_text("user_id,item_id,rating\n"), "my.csv: the file has a header but no rows"),
    "not text": (_bytes(bytes(range(256)) * 40), "expected text, got a NUL byte"),
    "a picture": (_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" * 30), "my.csv:3: expected text, got a NUL byte"),
    "latin-1": (_bytes("user_id,item_id,rating\nJürgen,a,3\n".encode("latin-1")), "my.csv:2: "),
    "cut gzip": (lambda path: path.write_bytes(gzip.compress(b"user_id,item_id,rating\n" * 99)[:-20]), "broken gzip"),
    "no parquet": (_bytes(b"PAR1 and nothing else"), "my.csv: "),
    "column missing": (
        _rows(GOOD, "user_id,product,rating"),
        "my.csv:1: needed column 'item_id' is missing, the columns are 'user_id, product, rating'; "
        "name yours with -P item_column=<column>",
    ),
    "column twice": (_rows([(*r, 3) for r in GOOD], "user_id,item_id,rating,rating"), "column 'rating' is there 2"),
    "not a number": (
        _rows([*GOOD, ("u1", "i98", "abc"), ("u2", "i98", "def")]),
        f"my.csv:{len(GOOD) + 2}: column 'rating': expected a number, got 'abc'; ",
    ),
    "decimal comma": (
        _text("user_id;item_id;rating\na;x;3,5\nb;x;4.0\n"),
        "my.csv:2: column 'rating': expected a number",
    ),
    "infinite": (_rows([*GOOD, ("u1", "i98", "inf")]), f"my.csv:{len(GOOD) + 2}: column 'rating': expected a number"),
    "too few fields": (_text("user_id,item_id,rating\na,x,3\nb,x\n"), "my.csv:3: expected 3 fields, got 2"),
    "all rows dropped": (_rows([("a", "x", 0), ("b", "x", ""), ("", "x", 3)]), "none of the 3 rows is left"),
    "one user": (_rows([("anna", f"i{n}", n % 5 + 1) for n in range(30)]), "at least 2 users are needed"),
    "one item": (_rows([(f"u{n}", "soap", n % 5 + 1) for n in range(30)]), "at least 2 items are needed"),
    "too few rows": (_rows([("a", "x", 1), ("b", "y", 5)]), "rating is needed, but split=hash with test_size=0.2"),
    "scale below the threshold": (
        _rows(grid(low=0.1, high=1)),
        "parameter 'like_threshold': above the lowest rating of my.csv (0.1) and at most the highest (1), got 4",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_ratings_file_that_cannot_be_used(case, store, refused):
    write, expected = FILES[case]
    write(store.home / "my.csv")
    message = refused("prepare", ratings="my.csv")
    assert expected in message
    assert "my.csv" in message
    assert store.run_named("prepare").info.status == "FAILED"
    assert not list(store.data.rglob("*"))


def test_equal_ratings_are_refused_where_they_are_said_to_be_ratings(store, refused):
    _rows([(u, i, 4) for u, i, _ in GOOD])(store.home / "my.csv")
    assert "all 146 are 4, so there is nothing to learn" in refused("prepare", ratings="my.csv", feedback="explicit")
    assert not list(store.data.rglob("*"))


def test_a_refusal_while_training_fails_the_training_and_what_it_had_prepared_first(store, refused):
    FILES["not a number"][0](store.home / "my.csv")
    refused("train", ratings="my.csv", family="bias")
    assert {run.info.run_name: run.info.status for run in store.runs()} == {"train bias": "FAILED", "prepare": "FAILED"}


def test_a_refusal_within_main_fails_main(store, refused):
    FILES["one user"][0](store.home / "my.csv")
    assert "anna" in refused("main", ratings="my.csv", families="bias")
    assert {run.info.run_name: run.info.status for run in store.runs()} == {"main": "FAILED", "prepare": "FAILED"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"ratings": "none.csv"}, "none.csv: no such file in "),
        ({"ratings": "no*.csv"}, "no*.csv: no file's name matches; check the pattern"),
        ({"ratings": "movielens-100m"}, "movielens-100m: no such file in "),
        ({"separator": ";"}, "my.csv:1: "),
        (
            {"user_column": "customer"},
            "needed column 'customer' is missing, the columns are 'user_id, item_id, rating'",
        ),
        ({"timestamp_column": "when"}, "needed column 'when' is missing"),
        ({"user_column": "rating"}, "parameters user_column and rating_column both name column 'rating'"),
        ({"split": "time"}, "parameter 'split': time needs timestamps"),
        ({"min_rating": 6}, "none of the 146 rows is left"),
        ({"like_threshold": 5.5}, "parameter 'like_threshold': "),
        ({"like_threshold": 1}, "parameter 'like_threshold': "),
        ({"test_size": 0.6, "validation_size": 0.4}, "parameters 'test_size' and 'validation_size': together below 1"),
        ({"test_size": 0.0001}, "at least one test rating is needed"),
    ],
)
def test_a_parameter_that_does_not_fit_the_file(parameters, expected, store, refused):
    write_csv(store.home / "my.csv", GOOD)
    assert expected in refused("prepare", **{"ratings": "my.csv", **parameters})


def test_versions_that_are_not_there(store, step, refused):
    assert "model 'recsys' has no version in sqlite:///" in refused("evaluate")
    assert "run the entry point train first" in refused("promote")
    assert {run.info.status for run in store.runs()} == {"FAILED"}
    write_csv(store.home / "my.csv", GOOD)
    step("train", ratings="my.csv", family="bias")
    assert "parameter 'version': one of model 'recsys''s versions (1), got 7" in refused("evaluate", version=7)
    assert "model 'other' has no version" in refused("promote", model_name="other")
    assert "dataset 'feed' is not in " in refused("promote", dataset="feed")
    assert not {"auc"} & set(store.client.get_model_version("recsys", "1").tags)


def test_no_version_that_passes_leaves_production_as_it_was(store, step, capsys):
    write_csv(store.home / "my.csv", GOOD)
    step("train", ratings="my.csv", family="bias")
    step("promote", max_rmse=4, beat_bias=False)
    before = store.contents()
    capsys.readouterr()
    step("promote", max_rmse=0.001, beat_bias=False)
    shown = capsys.readouterr().out
    assert "version 1 is no candidate: its RMSE " in shown
    assert "is not below 0.001 (max_rmse" in shown
    assert store.contents() == before
    assert before[1][0][1] == "Production"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda folder: _cut(folder / "train/part-00000.parquet"),
            "part-00000.parquet is not what prepare wrote",
        ),
        (lambda folder: (folder / "test/part-00000.parquet").unlink(), "test/part-00000.parquet is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing or cannot be read"),
        (lambda folder: _cut(folder / "manifest.json"), "manifest.json is missing or cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is missing or cannot be read"),
    ],
)
def test_a_dataset_altered_by_hand(damage, expected, store, step, refused):
    write_csv(store.home / "my.csv", GOOD)
    step("train", ratings="my.csv", family="bias")
    (folder,) = (store.data / "prepared").iterdir()
    damage(folder)
    for name, parameters in {
        "prepare": {"ratings": "my.csv"},
        "train": {"ratings": "my.csv", "family": "bias"},
        "evaluate": {},
        "promote": {},
    }.items():
        message = refused(name, **parameters)
        assert expected in message
        assert f"delete {folder}" in message or "delete that folder" in message
    shutil.rmtree(folder)
    step("prepare", ratings="my.csv")
    step("evaluate")


def test_a_data_folder_that_cannot_be_written(store, step, in_process, capsys):
    write_csv(store.home / "my.csv", GOOD)
    in_process.setenv("RECSYS_DATA", str(store.home / "my.csv"))
    with pytest.raises(SystemExit):
        step("prepare", ratings="my.csv")
    message = capsys.readouterr().err
    assert message.startswith("error: prepare: ")
    assert message.count("\n") == 1
    assert "my.csv" in message
    assert store.run_named("prepare").info.status == "FAILED"


def test_what_a_killed_prepare_left_is_in_nobodys_way(store, step):
    write_csv(store.home / "my.csv", GOOD)
    left = store.data / "prepared" / ".partial-abc"
    left.mkdir(parents=True)
    (left / "train.parquet").write_bytes(b"half")
    step("train", ratings="my.csv", family="bias")
    step("promote", max_rmse=4, beat_bias=False)


def test_a_tracking_server_that_never_answers_is_asked_once_and_briefly(store, step, in_process, capsys):
    in_process.setattr(connection, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        in_process.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(SystemExit) as caught:
            step("train", family="bias")
        server.setblocking(False)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: train: MLFLOW_TRACKING_URI: ")
    assert f"{uri} cannot be used (ReadTimeout: " in message
    assert "(read timeout=0.3)" in message
    assert "start it, correct the URI, or unset MLFLOW_TRACKING_URI" in message


def test_a_tracking_server_is_given_seconds_and_not_minutes_to_answer():
    assert 1 <= connection._CONNECT_SECONDS <= 10


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("http://anna:se%40cret@127.0.0.1:{port}/", "http://anna:***@127.0.0.1:{port}/"),
        ("mysql+pymysql://anna:se%40cret@127.0.0.1:{port}/mlflow", "mysql+pymysql://anna:***@127.0.0.1:{port}/mlflow"),
        ("http://no-such-host.invalid:5000", "http://no-such-host.invalid:5000"),
        ("http://127.0.0.1:port", "http://127.0.0.1:port"),
        ("ftp://127.0.0.1:{port}/x", "ftp://127.0.0.1:{port}/x"),
        ("postgresql://anna:se%40cret@127.0.0.1:{port}/mlflow", "postgresql://anna:***@127.0.0.1:{port}/mlflow"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_tracking_server_that_is_not_there(uri, shown, store, step, in_process, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    in_process.setenv("MLFLOW_TRACKING_URI", uri.format(port=port))
    slept = []
    in_process.setattr(time, "sleep", slept.append)
    with pytest.raises(SystemExit) as caught:
        step("train", family="bias")
    assert slept == []  # it is asked once, where MLflow would wait and ask again for minutes
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: train: MLFLOW_TRACKING_URI: ")
    assert message.count("\n") == 1
    assert shown.format(port=port) in message
    assert "cret" not in message


def test_a_server_that_is_none_of_mlflow(store, step, in_process, capsys):
    answers = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answers)

        threading.Thread(target=answer, daemon=True).start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        in_process.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(SystemExit):
            step("train", family="bias")
    assert f"{uri} cannot be used (ConnectionError: /health answers 404" in capsys.readouterr().err


def test_a_tracking_database_that_another_process_holds(store, step, in_process, capsys):
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as holder:
        holder.execute("begin exclusive")
        with pytest.raises(SystemExit):
            step("history")
    message = capsys.readouterr().err
    assert "database is locked); another process is writing there: type it again once that has ended" in message


def test_a_tracking_database_that_cannot_be_opened(store, step, in_process, capsys):
    (store.folder / "text.db").write_text("this is no database, " * 100)
    (store.folder / "folder.db").mkdir()
    for path in (store.folder / "text.db", store.folder / "text.db" / "mlflow.db", store.folder / "folder.db"):
        in_process.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        with pytest.raises(SystemExit):
            step("train", family="bias")
        message = capsys.readouterr().err
        assert message.startswith("error: train: MLFLOW_TRACKING_URI: ")
        assert message.count("\n") == 1
        assert str(path) in message


@pytest.mark.e2e
def test_a_refusal_fails_the_run_of_mlflow_run(store):
    write_csv(store.home / "my.csv", [("a", "x", "abc")])
    done = store.mlflow_run(str(PROJECT), "train", check=False, family="bias", ratings="my.csv")
    assert done.returncode != 0
    assert "my.csv:2: column 'rating': expected a number, got 'abc'" in done.stderr
    assert "Traceback" not in done.stderr
    assert {run.info.status for run in store.runs()} == {"FAILED"}
    assert "'abc'" in store.run_named("train bias").data.tags["error"]
    assert not list(store.data.rglob("*"))


SCALES = {
    "-10..10": (grid(low=-10, high=10), {"min_rating": -10, "like_threshold": 5}, [-10, 10]),
    "-10..10, none dropped": (grid(low=-10, high=10), {"min_rating": "none", "like_threshold": 5}, [-10, 10]),
    "1..10": (grid(low=1, high=10), {"like_threshold": 7}, [1, 10]),
    "0.5..5": (grid(low=0.5, high=5), {}, [0.5, 5]),
    "0 and 1": (grid(low=0, high=1), {"like_threshold": 1, "min_rating": 0}, [0, 1]),
}


@pytest.mark.parametrize("case", SCALES)
def test_a_scale_is_read_from_the_data(case, store, step):
    rows, parameters, scale = SCALES[case]
    write_csv(store.home / "my.csv", rows)
    step("train", ratings="my.csv", family="bias", **parameters)
    step("evaluate")
    run = store.run_named("evaluate version 1")
    assert 0 <= run.data.metrics["auc"] <= 1
    assert run.data.metrics["rmse"] < (scale[1] - scale[0])
    assert run.data.metrics["rows"] == 29
    description = store.client.get_model_version("recsys", "1").description
    assert "RMSE" in description


def test_a_scale_below_zero_that_is_cut_is_told(store, step, capsys):
    write_csv(store.home / "my.csv", grid(low=-10, high=10))
    step("prepare", ratings="my.csv", like_threshold=7)
    assert "pass -P min_rating=-10" in capsys.readouterr().out


def test_a_repeated_pair_counts_once(store, step, capsys):
    write_csv(store.home / "my.csv", [*GOOD, *GOOD[:20]])
    step("prepare", ratings="my.csv")
    assert "dropped 20 repeated_pair of 166 rows read" in capsys.readouterr().out
    metrics = store.run_named("prepare").data.metrics
    assert (metrics["dataset_size"], metrics["rows_read"], metrics["dropped_repeated_pair"]) == (146, 166, 20)


def test_odd_names_and_a_separator_by_parameter(module_store, module_step, capsys):
    module_step("prepare", ratings="my.csv", **COLUMNS)
    assert "1,200 ratings" in capsys.readouterr().out
