"""monitor and forget as steps: a version that is served, its feedback, and what is left on record."""

import json
import re
import shutil
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from recsys.data import dataset as datasets
from steps.support import repeat
from tests.support.pipeline import COLUMNS, write_sample
from tests.support.record_rows import record_rows
from tests.support.served_traffic import given_of, write

SAMPLE = {**COLUMNS, "ratings": "my.csv", "like_threshold": 3.5}


@pytest.fixture(scope="module")
def served(module_store):
    return module_store.home / "serving" / "recsys"


@pytest.fixture
def traffic(module_store, module_step, served):
    """A champion of family bias, once, and a day of lists and ratings of its test rows, anew."""
    from registry import integrity, transitions

    write_sample(module_store.home / "my.csv", users=120, items=60)
    if not (module_store.folder / "trained").exists():
        module_step("train", family="bias", **SAMPLE)
        module_step("promote", beat_bias=False, max_rmse=5)
        _register_at(module_store, time.time() - 90_000)
        (module_store.folder / "trained").touch()
    state = transitions.read_state("recsys")
    version = state.find(state.champion)
    dataset = datasets.load_dataset(version.tags["data_version"], module_store.data / "prepared")
    served.mkdir(parents=True, exist_ok=True)
    for file in served.glob("feedback.db*"):
        file.unlink()
    rows = dataset.test
    given = given_of(dataset.user_ids[rows.users], dataset.item_ids[rows.items], rows.ratings)
    now = time.time()
    random = np.random.default_rng(0)
    write(served / "feedback.db", given, integrity.load_version(version), random, since=now - 80_000, until=now)
    return dataset


def _register_at(store, moment):
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        database.execute("update model_versions set creation_time = ?", (int(1000 * moment),))


def test_monitor_leaves_a_run_a_summary_and_what_the_server_shows(traffic, module_store, module_step, served, capsys):
    module_step("monitor", export="out")
    said = capsys.readouterr().out
    assert "no alarm: 12 of 12 checks were judged" in said
    assert f"exported to {module_store.home / 'out'}" in said
    run = module_store.run_named("monitor")
    assert run.info.status == "FINISHED"
    assert run.data.tags["alarms"] == "none"
    assert run.data.metrics["version_1/rmse"] == pytest.approx(run.data.metrics["version_1/expected_rmse"], abs=0.1)
    paths = module_store.artifacts(run)
    assert {"report.json", "measures.csv", "findings.csv", "plots/drift.png", "plots/traffic.png"} <= paths
    assert "evidently.html" in paths, said
    page = Path(module_store.client.download_artifacts(run.info.run_id, "evidently.html"))
    assert 100_000 < page.stat().st_size <= 4_000_000
    content = json.loads((served / "monitor.json").read_text())
    looks = content["look"]
    assert content["about"]["family"] == "bias"
    assert content["about"]["decisions"] == {"promoted": 1}
    module_step("monitor", page=False)
    again = json.loads((served / "monitor.json").read_text())
    assert again["look"] == looks + 1
    assert len(again["course"]) == len(content["course"]) + 1


def test_a_champion_whose_data_was_deleted_is_reported_with_what_cannot_be_compared(
    traffic, module_store, module_step, capsys
):
    aside = module_store.folder / "aside"
    shutil.move(traffic.folder, aside)
    try:
        module_step("monitor", page=False)
    finally:
        shutil.move(aside, traffic.folder)
    said = capsys.readouterr().out
    assert "no alarm: 3 of 12 checks were judged" in said
    assert f"note: dataset '{traffic.digest}' is not in" in said
    assert "there is nothing to compare the window with" in said


def test_a_look_that_fails_is_told_and_the_next_one_is_at_its_time(traffic, module_step, capsys, monkeypatch):
    from registry import transitions

    real, slept = transitions.read_state, []

    def read_state(name):
        if len(slept) == 1:
            raise MlflowException("the registry is away")
        return real(name)

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(transitions, "read_state", read_state)
    monkeypatch.setattr(repeat, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with pytest.raises(SystemExit):
        module_step("monitor", page=False, every="10m")
    said = capsys.readouterr().out
    assert said.count("checks were judged") == 2
    assert said.count("note: this look found nothing (MlflowException: the registry is away)") == 1
    assert all(0 < seconds <= 600 for seconds in slept)


def test_lists_of_a_version_whose_number_another_one_has_now_are_not_its_own(
    traffic, module_step, module_store, served, capsys
):
    module_step("monitor", page=False)
    measured = set(module_store.run_named("monitor").data.metrics)
    _register_at(module_store, time.time() - 40_000)  # after half of the lists
    capsys.readouterr()
    module_step("monitor", page=False)
    _register_at(module_store, time.time() - 90_000)
    said = capsys.readouterr().out
    (kept,) = re.findall(
        r"note: (\d+) ratings of lists by version 1 of before are not measured: the registry was restored", said
    )
    assert 0 < int(kept) < len(traffic.test)
    assert "version_1_of_before/ndcg" in set(module_store.run_named("monitor").data.metrics) - measured


def test_forget_removes_a_person_and_says_which_versions_learnt(traffic, module_step, served, capsys):
    person, stranger = str(traffic.user_ids[0]), "nobody"
    module_step("forget", user=person, dry_run=True)
    assert "found" in capsys.readouterr().out
    module_step("forget", user=person)
    said = capsys.readouterr().out
    assert "rows of served" in said
    assert f"learnt from this person: 1 (dataset {traffic.digest[:12]})" in said
    with sqlite3.connect(served / "feedback.db") as database:
        for users in (database.execute("select user from feedback"), record_rows(served / "feedback.db", "user")):
            found = {user for (user,) in users}
            assert found
            assert person not in found
    module_step("forget", user=stranger)
    said = capsys.readouterr().out
    assert "no version of recsys learnt from this person" in said
    assert "not looked at: ratings files (those that retrain gathered too, in the folder of data), datasets" in said


@pytest.mark.parametrize(
    ("step", "parameters", "sentence"),
    [
        ("forget", {}, "parameter 'user': the id of the person is needed"),
        ("forget", {"user": "u", "store": "elsewhere"}, "run the entry point serve"),
        ("forget", {"user": "u", "database": "mysql+pymysql://me:secret@host/x"}, "a password on a command line"),
        ("monitor", {"store": "elsewhere"}, "run the entry point serve"),
        ("monitor", {"until": "yesterday"}, "parameter 'until'"),
        ("monitor", {"export": "my.csv"}, "parameter 'export': a folder is needed, got 'my.csv', but "),
        ("monitor", {"window": "a day"}, "expected a time such as 90s, 10m, 1h or 7d"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(traffic, module_step, capsys, step, parameters, sentence):
    with pytest.raises(SystemExit):
        module_step(step, **parameters)
    assert sentence in capsys.readouterr().err
