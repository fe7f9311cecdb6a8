"""Lists of many users into a file: whole or not there, and the same whether it was made at once or went on."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from pyarrow import csv

from recsys.data.id_files import read_ids
from recsys.errors import InputError
from recsys.models.base.family import family_module
from recsys.serving import batch
from recsys.serving.batch import COLUMNS, Order, write_lists
from recsys.testing.datasets import prepared, rated
from recsys.training.trainer import train


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    dataset = prepared(tmp_path_factory.mktemp("batch"), rated(40, 30, 1, 5, step=1))
    return train("bias", dataset, family_module("bias").Config(), seed=1).final


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(batch, "_LISTED_A_PART", 35)  # seven users of five items


def ids(*names):
    return np.array(names, object)


def test_the_rows_are_those_of_recommend(recommender, tmp_path):
    users = ids(*recommender.knowledge.user_ids, "nobody")
    counts = write_lists(recommender, users, Order(5), tmp_path / "lists.parquet", "1")
    table = pq.read_table(tmp_path / "lists.parquet")
    assert table.schema.equals(COLUMNS)
    made = recommender.recommend(users, 5)
    assert table["item_id"].to_pylist() == np.concatenate(made.items).tolist()
    assert table["like_probability"].to_pylist() == np.concatenate(made.probabilities).tolist()
    assert table["user_id"].to_pylist() == np.repeat(users, 5).tolist()
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5] * len(users)
    assert counts.policies == {"personal": len(users) - 1, "popular": 1}
    assert (counts.users, counts.rows, counts.short) == (len(users), 5 * len(users), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["lists.parquet"]


def test_csv_holds_the_same(recommender, tmp_path):
    users = recommender.knowledge.user_ids
    for name in ("lists.csv", "lists.parquet"):
        write_lists(recommender, users, Order(5), tmp_path / name, "1")
    options = csv.ConvertOptions(column_types=COLUMNS)
    read = csv.read_csv(tmp_path / "lists.csv", convert_options=options)
    assert read.to_pydict() == pq.read_table(tmp_path / "lists.parquet").to_pydict()


class StoppedError(Exception):
    pass


def stop_after(monkeypatch, parts):
    """Make the writing stop once so many parts are made."""
    make, left = batch.make_part, [parts]

    def stopping(*arguments):
        if not left[0]:
            raise StoppedError
        left[0] -= 1
        return make(*arguments)

    monkeypatch.setattr(batch, "make_part", stopping)


@pytest.mark.parametrize("name", ["lists.parquet", "lists.csv"])
def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(recommender, tmp_path, monkeypatch, name):
    users, order = recommender.knowledge.user_ids, Order(5)
    whole, output = tmp_path / f"whole-{name}", tmp_path / name
    expected = write_lists(recommender, users, order, whole, "1")
    output.write_text("what was there")
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(StoppedError):
            write_lists(recommender, users, order, output, "1")
    assert output.read_text() == "what was there"
    stop_after(monkeypatch, 3)  # 40 users are six parts: the other three only
    counts = write_lists(recommender, users, order, output, "1")
    assert output.read_bytes() == whole.read_bytes()
    assert counts.parts_found == 3
    assert (counts.users, counts.rows, counts.policies) == (expected.users, expected.rows, expected.policies)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, whole.name])


@pytest.mark.parametrize(
    "changed",
    [{"source": "2"}, {"order": Order(5, exclude_seen=False)}, {"order": Order(5, exclude=ids("i1"))}, {"users": 39}],
)
def test_parts_of_another_order_are_not_used(recommender, tmp_path, monkeypatch, changed):
    users = recommender.knowledge.user_ids
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(StoppedError):
            write_lists(recommender, users, Order(5), tmp_path / "lists.csv", "1")
    asked = users[: changed.get("users", 40)], changed.get("order", Order(5))
    counts = write_lists(recommender, *asked, tmp_path / "lists.csv", changed.get("source", "1"))
    write_lists(recommender, *asked, tmp_path / "other.csv", "")
    assert counts.parts_found == 0
    assert (tmp_path / "lists.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()


def test_who_has_fewer_is_counted_with_the_reason(recommender, tmp_path):
    users = recommender.knowledge.user_ids[:3]
    counts = write_lists(recommender, users, Order(5, candidates=ids("i1", "i2")), tmp_path / "lists.csv", "1")
    assert counts.short == 3
    assert counts.example.startswith(f"user {users[0]!r}: ")


def test_two_processes_do_not_write_one_output(recommender, tmp_path):
    users = recommender.knowledge.user_ids
    with FileLock(tmp_path / ".lists.csv.lock"), pytest.raises(InputError, match="another process is writing"):
        write_lists(recommender, users, Order(5), tmp_path / "lists.csv", "1")
    assert not (tmp_path / "lists.csv").exists()


@pytest.mark.parametrize("name", ["lists.txt", "lists", "no/lists.csv", "."])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="parameter 'output': a file"):
        batch.check_output(tmp_path / name)


def test_ids_are_read_from_lines_csv_and_parquet(recommender, tmp_path):
    lines, table, arrow = tmp_path / "users.txt", tmp_path / "users.csv", tmp_path / "users.parquet"
    lines.write_text("u1\nu2 \nu1\n", encoding="utf-8")
    table.write_text('name,user_id\n"a, b",u1\nc,u2\nd,u1\n', encoding="utf-8")
    write_lists(recommender, ids("u1", "u2"), Order(2), arrow, "1")
    for path, repeated in ((lines, 1), (table, 1), (arrow, 2)):
        found = read_ids(path, ["user_id"], "users")
        assert found[0].tolist() == ["u1", "u2"]
        assert found[1] == repeated


@pytest.mark.parametrize(
    "content",
    [
        "customer\nu1\nu2\n",
        "name,customer\na,u1\nb,u2\n",
        "customer;name\nu1;a, b\nu2;c\n",
        "user_id|customer\nu1|x\nu2|y\n",
        "u1\nu2\n",
    ],
)
def test_the_column_of_ids_may_have_either_name_whatever_separates_columns(tmp_path, content):
    (tmp_path / "users.csv").write_text(content, encoding="utf-8")
    assert read_ids(tmp_path / "users.csv", ["user_id", "customer"], "users")[0].tolist() == ["u1", "u2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "users.csv",
            "client;name\nu1;a\n",
            "users.csv: a column 'user_id' is needed; there are client, name; name it so, or give one id a line",
        ),
        (
            "users.csv",
            "user_id\nu2\na,u1\n",
            "users.csv:3: as many columns as in the first line (1) are needed, got ['a', 'u1']",
        ),
        ("users.txt", "u1\n\nu2\n", "users.txt: row 2: column 'user_id': an id (text or integer) is needed"),
        ("users.csv", "name,user_id\na,u1\nb\n", "users.csv: row 2: column 'user_id': an id"),
        ("users.txt", "", "users.txt: at least one id is needed"),
        ("users.parquet", "no parquet", "parameter 'users': a file of ids is needed, got "),
        (None, "", "parameter 'users': a file of ids is needed, got "),
    ],
)
def test_a_wrong_file_of_ids_is_refused_with_its_place(tmp_path, name, content, message):
    path = tmp_path / (name or "missing")
    if name:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_ids(path, ["user_id"], "users")
    assert message in str(caught.value)


def test_a_parquet_file_without_the_column_names_those_it_has(recommender, tmp_path):
    write_lists(recommender, ids("u1"), Order(2), tmp_path / "lists.parquet", "1")
    shutil.copy(tmp_path / "lists.parquet", tmp_path / "other.parquet")
    with pytest.raises(InputError, match="a column 'customer' or 'client' is needed; there are user_id, rank"):
        read_ids(tmp_path / "other.parquet", ["customer", "client"], "users")
