"""The contract of a dataset's layout: what prepare writes keeps it; whoever breaks it is told where."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recsys.data import layout, splits
from recsys.data.dataset import open_prepared
from recsys.data.manifest import read_manifest
from recsys.data.parquet_store import PARTS
from recsys.errors import InputError
from recsys.testing import dataset as kit
from recsys.testing.datasets import rated

ROWS = rated(40, 30, 1, 5, step=0.5)
TIMED = [(*row, 1_000 + number) for number, row in enumerate(ROWS)]


@pytest.fixture
def written(prepare_rows, tmp_path):
    """The tables of a dataset without its manifest, as another engine leaves them."""

    def written(rows=TIMED, **parameters):
        made = prepare_rows(rows, **parameters)
        folder = tmp_path / "written"
        shutil.copytree(made.folder, folder)
        (folder / "manifest.json").unlink()
        return folder, made

    return written


@pytest.mark.parametrize("parameters", [{}, {"split": "random"}, {"split": "time"}, {"feedback": "implicit"}], ids=str)
def test_what_prepare_writes_keeps_the_contract(prepare_rows, parameters):
    assert layout.check(prepare_rows(TIMED, **parameters).folder) == []


def test_a_sealed_folder_is_the_dataset_that_prepare_makes(written):
    folder, made = written()
    (folder / "train" / "_SUCCESS").touch()
    digest = layout.seal(folder, made.preparation, rows_read=len(TIMED))
    assert layout.check(folder) == []
    manifest = read_manifest(folder)
    of_itself = {"digest", "created", "source", "checksum"}
    assert {key: value for key, value in manifest.items() if key not in of_itself} == {
        key: value for key, value in made.manifest.items() if key not in of_itself
    }
    assert manifest["digest"] == digest
    assert open_prepared(folder, manifest).test_digest == made.test_digest
    assert not (folder / "train" / "_SUCCESS").exists()


def test_the_digest_follows_from_content_and_parameters_alone(written):
    folder, made = written()
    first = layout.seal(folder, made.preparation)
    elsewhere = made.preparation.model_copy(update={"ratings": "elsewhere"})
    assert layout.seal(folder, elsewhere) == first
    other = made.preparation.model_copy(update={"like_threshold": 3.0})
    assert layout.seal(folder, other) != first


def change(folder, name, edit):
    path = folder / name
    pq.write_table(edit(pq.read_table(path)), path)


def put(table, column, value, row=0):
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(
        table.schema.get_field_index(column), column, pa.array(values, table.schema.field(column).type)
    )


PART = "train/part-00000.parquet"
BREAKS = {
    "a column less": (
        "users.parquet",
        lambda t: t.drop(["rating_std"]),
        "column 'rating_std' of type double is needed",
    ),
    "another type": (
        PART,
        lambda t: t.set_column(0, "user", t["user"].cast(pa.int64())),
        "type int32 is needed, got int64",
    ),
    "an id twice": ("items.parquet", lambda t: put(t, "item_id", "i1"), "column 'item_id': each id once"),
    "no id": ("users.parquet", lambda t: put(t, "user_id", None), "column 'user_id': each id once, and none missing"),
    "a code too large": (PART, lambda t: put(t, "item", 30), "items.parquet, 0 to 29, is needed"),
    "a code below 0": (PART, lambda t: put(t, "user", -1), "users.parquet, 0 to 39, is needed"),
    "a missing code": (PART, lambda t: put(t, "user", None), "users.parquet, 0 to 39, is needed"),
    "a rating that is none": (PART, lambda t: put(t, "rating", np.nan), "column 'rating': a finite number is needed"),
    "a missing rating": (PART, lambda t: put(t, "rating", None), "column 'rating': a finite number is needed"),
    "a moment that is none": (PART, lambda t: put(t, "timestamp", np.inf), "column 'timestamp': a finite number"),
    "a row twice": (PART, lambda t: pa.concat_tables([t, t[:1]]), "1 rows repeat one"),
    "a row less": (PART, lambda t: t[1:], "differ"),
    "another average": (
        "users.parquet",
        lambda t: put(t, "average_rating", 9.0),
        "column 'average_rating': 'u0' has 9",
    ),
    "another count": ("items.parquet", lambda t: put(t, "unique_users", 1), "column 'unique_users': 'i0' has 1"),
    "times in some": (PART, lambda t: t.drop(["timestamp"]), "all files have a column 'timestamp', or none has"),
    "an id of no row": (
        "users.parquet",
        lambda t: pa.concat_tables([t, put(t[:1], "user_id", "x")]),
        "1 ids ('x') occur",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_each_way_of_breaking_it_is_told_by_its_place_and_nothing_is_written(written, broken):
    folder, made = written()
    name, edit, told = BREAKS[broken]
    change(folder, name, edit)
    with pytest.raises(InputError) as caught:
        layout.seal(folder, made.preparation)
    assert told in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (folder / "manifest.json").exists()


def test_rows_of_another_part_by_their_hash_are_counted(written):
    folder, made = written()
    train, test = (folder / part / "part-00000.parquet" for part in ("train", "test"))
    rows = pq.read_table(test)
    pq.write_table(pa.concat_tables([pq.read_table(train), rows[:3]]), train)
    pq.write_table(rows[3:], test)
    with pytest.raises(InputError, match=r"train: 3 rows of a block of \d+ belong to another part by the hash"):
        layout.seal(folder, made.preparation)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_or_empty_is_told(written, part):
    folder, made = written()
    change(folder, f"{part}/part-00000.parquet", lambda table: table[:0])
    with pytest.raises(InputError, match="at least one row is needed"):
        layout.seal(folder, made.preparation)
    shutil.rmtree(folder / part)
    with pytest.raises(InputError, match=rf"{part}: a folder with files part-00000.parquet"):
        layout.seal(folder, made.preparation)


def test_row_groups_that_do_not_fit_in_memory_are_refused(written, monkeypatch):
    folder, made = written()
    monkeypatch.setattr(layout, "ROW_GROUP", 100)
    with pytest.raises(InputError, match=r"row groups of at most 100 rows are needed, got one of \d+"):
        layout.seal(folder, made.preparation)


def test_a_manifest_that_says_otherwise_than_the_rows_is_told(written):
    folder, made = written()
    layout.seal(folder, made.preparation)
    change(folder, "test/part-00000.parquet", lambda table: table.set_column(2, "rating", pc.add(table["rating"], 1.0)))
    assert layout.check(folder) == [
        f"dataset {folder}: test/part-00000.parquet is not what prepare wrote; delete that folder and run the entry "
        "point prepare again, which makes it anew"
    ]


def test_the_kit_seals_and_checks_on_the_command_line(written, capsys):
    folder, _ = written(split="time")
    with pytest.raises(SystemExit):
        kit.main([str(folder)])
    assert "there is no manifest.json; add it by --seal" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        kit.main([str(folder), "--seal"])  # not as prepared: by hash
    assert "belong to another part by the hash" in capsys.readouterr().err
    kit.main([str(folder), "--seal", "--split=time", "--min_rating=none"])
    kit.main([str(folder)])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"sealed {folder}: dataset ")
    assert said[1] == f"{folder}: keeps the contract"
    with pytest.raises(SystemExit):
        kit.main([str(folder), "--seal", "--splt=time"])
    assert "unknown parameter 'splt' (did you mean 'split'?)" in capsys.readouterr().err


def test_the_writer_for_spark_gives_each_pair_its_part(prepare_rows):
    """The one function of deploy/spark/prepare.py that decides, without Spark."""
    made = prepare_rows(TIMED)
    path = Path(__file__).resolve().parents[2] / "deploy/spark/prepare.py"
    (function,) = (
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "part_of"
    )
    names = {"pd": pd, "np": np, "splits": splits, "preparation": made.preparation, "Iterator": Iterator}
    exec(compile(ast.Module([function], []), str(path), "exec"), names)
    rows = pd.DataFrame(TIMED, columns=["user_id", "item_id", "rating", "timestamp"]).sample(frac=1, random_state=1)
    found = pd.concat(names["part_of"](iter([rows[:300], rows[300:]])))
    for number, part in enumerate(PARTS):
        own = getattr(made, part)
        expected = set(zip(made.user_ids[own.users], made.item_ids[own.items], strict=True))
        mine = found[found["part"] == number]
        assert set(zip(mine["user_id"], mine["item_id"], strict=True)) == expected
