"""The step `recommend`, and the registered model asked for lists."""

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.pipeline import COLUMNS

pytestmark = pytest.mark.store


@pytest.fixture
def trained(module_store, module_step):
    """A store with a version that lists and one that does not; nobody is champion."""
    if not module_store.runs():
        for lists in ("true", "false"):
            module_step("train", ratings="my.csv", family="bias", lists=lists, **COLUMNS)
    return module_store


def refused(step, capsys, **parameters):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        step("recommend", **parameters)
    return capsys.readouterr().err


def test_lists_of_all_users_are_written_and_on_the_record(trained, module_step, capsys):
    module_step("recommend", version=1, n=3)
    table = pq.read_table(trained.home / "lists.parquet")
    assert table.num_rows == 180
    policies = table["policy"].to_pylist()
    assert set(policies) <= {"personal", "popular"}
    assert policies.count("personal") > 90  # popular: for users who like nothing
    run = trained.runs()[0]
    assert run.data.tags["version"] == "1"
    assert run.data.metrics["users"] == 60
    assert run.data.metrics["users_personal"] == policies.count("personal") / 3
    shown = capsys.readouterr().out
    assert "180 items for 60 users (" in shown
    assert "by version 1 (bias)" in shown


def test_files_of_ids_may_have_the_names_of_the_ratings(trained, module_step, capsys):
    home = trained.home
    (home / "mine.csv").write_text("note;Kundin / Nr.\na;größe 003\nb;nobody\n", encoding="utf-8")
    (home / "stock.csv").write_text("sku\nSKU-1\nSKU-3\n", encoding="utf-8")
    module_step("recommend", version=1, users="mine.csv", candidates="stock.csv", exclude_seen=False, output="own.csv")
    table = pd.read_csv(home / "own.csv")
    assert set(table.user_id) == {"größe 003", "nobody"}
    assert set(table.item_id) == {"SKU-1", "SKU-3"}
    shown = capsys.readouterr().out
    assert "note: 1 users are unknown to the version, such as 'nobody'" in shown
    assert "candidates or exclusions are unknown" not in shown


def test_users_candidates_and_exclusions_come_from_files(trained, module_step, capsys):
    home = trained.home
    (home / "users.csv").write_text("user_id,note\ngröße 003,a\nnobody,b\ngröße 003,c\n", encoding="utf-8")
    (home / "some.txt").write_text("SKU-1\nSKU-2\nSKU-3\nSKU-x\n", encoding="utf-8")
    (home / "not.txt").write_text("SKU-2\n", encoding="utf-8")
    given = {"version": 1, "users": "users.csv", "candidates": "some.txt", "exclude": "not.txt"}
    module_step("recommend", output="lists.csv", exclude_seen=False, diversity=0.5, **given)
    table = pd.read_csv(home / "lists.csv")
    assert {name: set(items) for name, items in table.groupby("user_id").item_id} == {
        "größe 003": {"SKU-1", "SKU-3"},
        "nobody": {"SKU-1", "SKU-3"},
    }
    assert set(table.policy[table.user_id == "nobody"]) == {"popular"}
    shown = capsys.readouterr().out
    assert "note: users: 1 ids are there twice and count once" in shown
    assert 'note: 1 candidates or exclusions are unknown to the version and were ignored: ["SKU-x"]' in shown
    assert "note: 2 users have shorter lists, such as user 'größe 003': only 2 are left" in shown


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "model 'recsys' has no champion; run the entry point promote first, or pass the number of a version"),
        ({"version": 2}, "train it again with the same data and lists=true"),
        ({"version": 9}, "parameter 'version': one of model 'recsys''s versions (1, 2), got 9"),
        ({"version": 1, "n": 0}, "parameter 'n'"),
        ({"version": 1, "output": "lists.json"}, "a file that ends in .parquet or .csv is needed"),
        ({"version": 1, "users": "missing.csv"}, "parameter 'users': a file of ids is needed"),
        (
            {"version": 1, "users": "table.csv"},
            "a column 'user_id' or 'Kundin / Nr.' is needed; there are client, name",
        ),
        ({"version": 1, "candidates": "strange.txt"}, "none of these 1 was learnt from: 'SKU-x'"),
        ({"version": 1, "exclude": "strange.txt", "unknown": "refuse"}, "leave them out, or pass unknown=ignore"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(
    trained, module_step, capsys, parameters, message
):
    (trained.home / "strange.txt").write_text("SKU-x\n", encoding="utf-8")
    (trained.home / "table.csv").write_text("client;name\nu1;Ann\n", encoding="utf-8")
    output = trained.home / parameters.get("output", "refused.parquet")
    assert message in refused(module_step, capsys, **{"output": output.name, **parameters})
    assert not output.exists()
    assert not list(trained.home.glob(".*.parts"))


def test_the_registered_model_answers_users_alone_by_lists(trained, in_process):
    in_process.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(trained.uri)
    model = mlflow.pyfunc.load_model("models:/recsys/1")
    table = pd.DataFrame({"user_id": ["größe 003", "nobody"]}, index=[5, 3])
    answer = model.predict(table, params={"n": 4})
    assert list(answer.columns) == ["items", "scores", "like_probabilities", "policy", "note"]
    assert answer.index.tolist() == [5, 3]
    assert [len(items) for items in answer["items"]] == [4, 4]
    assert answer.policy.iloc[1] == "popular"
    assert len(model.predict(table)["items"].iloc[0]) == 10
    short = model.predict(table, params={"n": 100, "exclude_seen": False})
    assert len(short["items"].iloc[0]) < 100
    assert short.note.iloc[0].startswith("only ")
    pairs = model.predict(table.assign(item_id="SKU-1"))
    assert list(pairs.columns) == ["rating", "like_probability"]
    with pytest.raises(ValueError, match="parameter 'n': a whole number of items, at least 1, is needed, got 0"):
        model.predict(table, params={"n": 0})
    without = mlflow.pyfunc.load_model("models:/recsys/2")
    with pytest.raises(ValueError, match="train it again with the same data and lists=true"):
        without.predict(table)
