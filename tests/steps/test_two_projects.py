"""Two projects on one machine, whose prepared datasets lie in one folder."""

import re

from recsys.data.dataset import newest_dataset
from tests.support.pipeline import grid, write_csv

ANY = {"max_rmse": 4, "beat_bias": False}


def test_promote_decides_by_the_dataset_of_its_own_versions(store, step, capsys):
    """The other's is newer, and its integers are the same ids."""
    write_csv(store.home / "ours.csv", [(u[1:], i[1:], rating) for u, i, rating in grid()])
    write_csv(store.home / "theirs.csv", [(u[1:], i[1:], 6 - rating) for u, i, rating in grid(14, 14)])
    step("train", ratings="ours.csv", family="bias")
    ours = newest_dataset(store.data / "prepared")
    step("train", ratings="theirs.csv", family="bias", model_name="theirs")
    assert newest_dataset(store.data / "prepared").digest != ours.digest
    capsys.readouterr()
    step("promote", **ANY)
    assert f"test ratings of dataset {ours.digest}" in capsys.readouterr().out
    step("promote", model_name="theirs", **ANY)
    assert ours.digest not in capsys.readouterr().out


def test_a_version_that_knows_almost_nobody_of_a_dataset_is_refused_with_the_shares(store, step, capsys):
    write_csv(store.home / "ours.csv", grid())
    write_csv(store.home / "theirs.csv", [("x" + u, i, rating) for u, i, rating in grid()])
    step("train", ratings="ours.csv", family="bias")
    step("prepare", ratings="theirs.csv")
    other = newest_dataset(store.data / "prepared").digest
    capsys.readouterr()
    step("promote", dataset=other, **ANY)
    said = capsys.readouterr().out
    assert re.search(r"version 1 is no candidate: it knows the user of 0% and the item of 100% of the test rat", said)
    assert not store.client.get_registered_model("recsys").aliases


def test_where_everyone_rated_once_a_version_is_judged_by_its_own_dataset(store, step, capsys):
    write_csv(store.home / "once.csv", [(f"{u}-{i}", i, rating) for u, i, rating in grid(20, 12)])
    step("train", ratings="once.csv", family="bias")
    step("promote", **ANY)
    assert "is no candidate" not in capsys.readouterr().out
    assert store.client.get_registered_model("recsys").aliases == {"champion": 1}
