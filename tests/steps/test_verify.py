"""A version whose files are not those registered is named and goes nowhere, and nothing of it runs."""

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest

from tests.support.pipeline import PROJECT, Store, grid, stepper, write_csv

ANY = {"max_rmse": 4, "beat_bias": False}


@pytest.fixture
def files(module_store, module_step, monkeypatch) -> Iterator[Path]:
    """The files of version 1 of two; what a test changes is put back."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as Python is by itself
    write_csv(module_store.home / "grid.csv", grid())
    if not module_store.client.search_registered_models():
        for seed in (1, 2):
            module_step("train", ratings="grid.csv", family="bias", seed=seed)
    model = module_store.client.get_logged_model(module_store.client.get_model_version("recsys", "1").source[8:])
    folder = Path(urlsplit(model.artifact_location).path)
    kept = module_store.folder / "kept"
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def champion(store: Store) -> int:
    return int(store.client.get_model_version_by_alias("recsys", "champion").version)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(capsys, step, name, **parameters):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        step(name, **parameters)
    said = capsys.readouterr()
    return said.out + said.err


def test_a_moved_project_is_whole_again_by_what_the_documentation_says(store, step, tmp_path, in_process, capsys):
    write_csv(store.home / "grid.csv", grid())
    step("train", ratings="grid.csv", family="bias")
    moved = Store(tmp_path / "another place")
    shutil.move(store.folder, moved.folder)
    there = stepper(moved.home, in_process, MLFLOW_TRACKING_URI=moved.uri, RECSYS_DATA=str(moved.data))
    assert "a project that was moved: docs/server.md" in refused(capsys, there, "verify", version=1)
    said = (PROJECT / "docs" / "server.md").read_text(encoding="utf-8").replace("\\\n", " ")
    ((columns, statement),) = re.findall(r'^\$ for place in (.*); do\n.* mlflow\.db "(update .*)"$', said, re.MULTILINE)
    with sqlite3.connect(moved.folder / "mlflow.db") as database:
        for column in columns.split():
            table, name = column.split(".")
            changed = statement.replace("${place%.*}", table).replace("${place#*.}", name)
            changed = changed.replace("/home/anna/recsys", str(store.folder)).replace("/srv/recsys", str(moved.folder))
            database.execute(changed)
        assert str(store.folder / "artifacts") not in "".join(database.iterdump())
    there("verify", version=1)
    assert "all as registered" in capsys.readouterr().out


def test_what_was_registered_is_verified(files, module_step, capsys):
    module_step("verify", version="all")
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [f"version {number}: {len(names(files)) - 1} files, all as registered" for number in (1, 2)]
    statement = json.loads((files / "provenance.json").read_text())
    made = statement["predicate"]["buildDefinition"]
    assert made["externalParameters"]["seed"] == 1
    assert {found["name"] for found in made["resolvedDependencies"]} == {"dataset", "code", "requirements.txt"}


def test_one_flipped_bit_in_any_file_is_named(files, module_step, capsys):
    for name in names(files):
        before = (files / name).read_bytes()
        flip(files / name)
        said = refused(capsys, module_step, "verify", version="all")
        expected = "its provenance.json is not the one" if name == "provenance.json" else f"{name} was altered"
        assert f"version 1 of 'recsys' is not what was registered: {expected}" in said
        assert "version 2: " in said
        assert said.count("not what was registered:") == 1
        (files / name).write_bytes(before)


def test_a_file_that_is_gone_or_new_is_named(files, module_step, capsys):
    (files / "model.sql").write_text("x")
    (files / "python_env.yaml").unlink()
    assert "model.sql was added, python_env.yaml is missing" in refused(capsys, module_step, "verify", version=1)


def test_an_altered_version_is_used_by_nobody(files, module_step, module_store, capsys, tmp_path):
    """It runs nothing: its code would make a file."""
    ran = tmp_path / "ran"
    module_step("promote", version=2, **ANY)
    for path in files.rglob("*.py"):
        path.write_text(f"open({str(ran)!r}, 'w')\n" + path.read_text())
    for name, parameters in (("evaluate", {"version": 1}), ("rollback", {"version": 1}), ("verify", {"version": 1})):
        assert "version 1 of 'recsys' is not what was registered" in refused(capsys, module_step, name, **parameters)
    module_store.client.set_registered_model_alias("recsys", "champion", "2")
    module_step("promote", version=1, **ANY)
    assert not ran.exists()
    assert champion(module_store) == 2


def test_a_winner_that_was_measured_and_then_altered_does_not_win(files, module_step, module_store, capsys):
    module_step("promote", dry_run=True, **ANY)
    module_store.client.delete_registered_model_alias("recsys", "champion")
    for number in "12":
        module_store.client.transition_model_version_stage("recsys", number, "None")
    flip(next(files.rglob("*.npz")))
    capsys.readouterr()
    module_step("promote", **ANY)
    assert (
        "note: version 1 is no candidate: version 1 of 'recsys' is not what was registered" in capsys.readouterr().out
    )
    assert champion(module_store) == 2


def test_the_model_itself_refuses_altered_files(files, module_step, module_store, in_process):
    path = next(files.rglob("*.npz"))
    flip(path)
    mlflow.set_tracking_uri(module_store.uri)
    mlflow.set_registry_uri(module_store.uri)
    with pytest.raises(ValueError, match=f"{path.name} was altered"):
        mlflow.pyfunc.load_model("models:/recsys/1")
