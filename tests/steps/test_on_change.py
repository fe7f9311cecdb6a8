"""A new file against the one before it: told, refused before anything is made of it, or not looked at."""

import pytest

from tests.support.pipeline import grid, write_csv


@pytest.fixture
def changed(store, step):
    """A file that was prepared, and another of the same name that most of its users are missing from."""
    write_csv(store.home / "ratings-1.csv", grid(users=20))
    step("prepare", ratings="ratings-1.csv")
    return write_csv(store.home / "ratings-2.csv", [row for row in grid(users=20) if row[0] in ("u0", "u1")])


def datasets(store):
    return {path.name for path in (store.data / "prepared").iterdir()}


def test_it_is_told_and_prepared(store, step, changed, capsys):
    step("prepare", ratings=changed.name)
    said = capsys.readouterr().out
    assert "warning: compared with the file before (dataset " in said
    assert "90% of the 20 users of the last file are missing" in said
    tags = store.run_named("prepare").data.tags
    assert "90% of the 20 users" in tags["changes"]
    assert {tags["compared_with"], tags["data_version"]} == datasets(store)


@pytest.mark.parametrize("name", ["prepare", "train"])
def test_it_is_refused_before_anything_is_made_of_it(store, step, changed, capsys, name):
    before = store.contents()
    with pytest.raises(SystemExit) as ended:
        step(name, ratings=changed.name, on_change="refuse")
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert f"{changed}: it differs from the file before (dataset " in told
    assert "90% of the 20 users of the last file are missing" in told
    assert "correct the file, or pass -P on_change=warn if that is meant" in told
    assert store.contents() == before
    assert len(datasets(store)) == 1
    step("prepare", ratings="ratings-1.csv", on_change="refuse")  # the one before is as good as it was


def test_it_is_not_looked_at_where_nobody_asks(store, step, changed, capsys):
    step("prepare", ratings=changed.name, on_change="ignore")
    assert "warning" not in capsys.readouterr().out
    assert len(datasets(store)) == 2
    assert "changes" not in store.run_named("prepare").data.tags
