import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from sqlalchemy import exc

from recsys.errors import InputError
from recsys.monitoring import archive
from recsys.monitoring.archive import Archive
from recsys.serving.record import message
from recsys.serving.record_blocks import Impression
from recsys.serving.record_table import Table
from tests.support.served_traffic import FEEDBACK

LIKES = np.array([0.5])


def write_lists(path, layout):
    """Ten lists: as rows, as a trial has them, or an earlier release; in blocks, as a server has; or some in either."""
    lists = [
        Impression(
            f"r{at}", float(at), "alice-the-person" if at % 2 else "bob", "1", "champion", "personal", 0, '["a"]', LIKES
        )
        for at in range(10)
    ]
    rows = {"rows": 10, "blocks": 0, "both": 5}[layout]
    table = Table(path)
    table.add([message([one._replace(trial="t") for one in lists[:rows]])] if rows else [])
    for start in range(rows, 10, 4):
        table.add([message(lists[start : start + 4])])
    table.close()


@pytest.fixture(params=["rows", "blocks", "both"])
def path(tmp_path, request):
    path = tmp_path / "feedback.db"
    write_lists(path, request.param)
    with sqlite3.connect(path) as database:
        database.executescript(FEEDBACK)
        for at in range(10):
            user = "alice-the-person" if at % 2 else "bob"
            event = f"k{at}", user, "a", "rating", 4.0, "", float(at), f"r{at}"
            database.execute(
                "insert into feedback (key, user, item, kind, value, moment, received, request) "
                "values (?, ?, ?, ?, ?, ?, ?, ?)",
                event,
            )
    database.close()
    return path


@pytest.fixture
def opened(path):
    return Archive(f"sqlite:///{path}")


def test_a_time_is_read_in_pages_that_miss_and_repeat_nothing(opened, monkeypatch):
    monkeypatch.setattr(archive, "_PAGE", 3)
    monkeypatch.setattr(archive, "_BLOCKS", 2)
    assert [row[0] for page in opened.lists(2, 9) for row in page] == [f"r{at}" for at in range(2, 9)]
    assert [row[0] for page in opened.feedback(0, 4) for row in page] == [f"k{at}" for at in range(4)]


def test_a_database_that_goes_away_in_between_is_asked_again(opened, monkeypatch):
    monkeypatch.setattr(archive, "_PAGE", 3)
    monkeypatch.setattr(archive, "_BLOCKS", 2)
    real, failed = sqlalchemy.engine.Connection.execute, []

    def execute(self, statement, *arguments):
        if "limit" in str(statement) and len(failed) < 2:
            failed.append(True)
            raise exc.OperationalError(str(statement), {}, Exception("Lost connection to server"))
        return real(self, statement, *arguments)

    monkeypatch.setattr(sqlalchemy.engine.Connection, "execute", execute)
    assert [row[0] for page in opened.lists(0, 10) for row in page] == [f"r{at}" for at in range(10)]
    assert len(failed) == 2


def test_a_file_that_goes_away_is_an_error_and_not_made_anew(opened, path):
    path.unlink()
    with pytest.raises(exc.OperationalError, match="unable to open"):
        opened.count_of("bob")
    assert not path.exists()


def test_a_person_is_removed_and_nobody_else(opened, path):
    assert opened.count_of("alice-the-person") == {"served": 5, "feedback": 5}
    assert opened.forget("alice-the-person") == {"served": 5, "feedback": 5}
    assert opened.count_of("alice-the-person") == {"served": 0, "feedback": 0}
    assert opened.count_of("bob") == {"served": 5, "feedback": 5}
    assert opened.forget("alice-the-person") == {"served": 0, "feedback": 0}
    for file in path.parent.iterdir():
        assert b"alice-the-person" not in file.read_bytes(), file


def test_what_is_handed_over_again_after_a_person_was_removed_does_not_bring_it_back(tmp_path):
    path = tmp_path / "feedback.db"
    write_lists(path, "blocks")
    with sqlite3.connect(path) as database:
        database.executescript(FEEDBACK)
    opened = Archive(f"sqlite:///{path}")
    assert opened.forget("bob")["served"] == 5  # the first list of each block among them
    before = [row for page in opened.lists(0, 10) for row in page]
    write_lists(path, "blocks")
    assert [row for page in opened.lists(0, 10) for row in page] == before
    assert [row[0] for row in before] == [f"r{at}" for at in range(1, 10, 2)]


def test_export_is_parquet_of_the_time(opened, tmp_path):
    assert opened.export(tmp_path / "out", 0, 4) == {"served": 4, "feedback": 4}
    served = pq.read_table(tmp_path / "out" / "served.parquet")
    assert served.column_names == list(archive.LIST_COLUMNS)
    assert served["request"].to_pylist() == [f"r{at}" for at in range(4)]
    assert served["likes"].to_pylist() == [LIKES.astype("<f4").tobytes()] * 4
    assert pq.read_table(tmp_path / "out" / "feedback.parquet")["value"].to_pylist() == [4.0] * 4


def test_a_server_that_has_recorded_nothing_yet_has_an_empty_archive(tmp_path):
    sqlite3.connect(tmp_path / "feedback.db").close()
    empty = Archive.of_folder(tmp_path)
    assert list(empty.lists(0, 10)) == []
    assert empty.forget("u") == {}
    assert empty.export(tmp_path / "out", 0, 4) == {"served": 0, "feedback": 0}


def test_where_there_is_no_server_the_remedy_is_told(tmp_path):
    with pytest.raises(InputError, match="run the entry point serve"):
        Archive.of_folder(tmp_path)
