"""retrain as a user meets it: why or why not, from what, and that nothing changes where it fails or finds nothing."""

import json
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.data import dataset as datasets
from registry import lease, transitions
from tests.support.pipeline import new_store, restored, stepper, write_csv
from tests.support.served_traffic import given_of, write

FAMILY = {"family": "matrix_factorization", "embedding_size": 2, "epochs": 20}
COLUMNS = {"user_column": "who", "item_column": "what", "rating_column": "stars", "timestamp_column": "when"}
ANY = {"max_rmse": 4, "beat_bias": False, "beat_popularity": False}
REAL_PACE = lease.Pace
QUICK = lease.Pace(beat=0.05, dead=2.0, settle=0.02)


def rating_of(user: int, item: int, random: np.random.Generator) -> float:
    return float(np.clip(round(3 + (1.5 if user % 2 == item % 2 else -1.5) + random.normal(0, 0.6)), 1, 5))


def sample(users: int, seed: int = 0) -> list[tuple[object, ...]]:
    random = np.random.default_rng(seed)
    return [
        (f"u{user:03}", f"i{item:02}", rating_of(user, item, random), 1_600_000_000 + 100 * user + item)
        for user in range(users)
        for item in range(40)
        if (user * 7 + item * 3) % 4 < 2
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with a champion, version 1, of a file with columns of other names."""
    store = new_store(tmp_path_factory.mktemp("retrain") / "store", tmp_path_factory.getbasetemp())
    write_csv(store.home / "my.csv", sample(80), "who,what,stars,when")
    return store


@pytest.fixture
def step(world, monkeypatch):
    monkeypatch.setattr("registry.lease.Pace", lambda: QUICK)
    with restored(monkeypatch):
        run = stepper(world.home, monkeypatch, MLFLOW_TRACKING_URI=world.uri, RECSYS_DATA=str(world.data))
        if not (world.folder / "trained").exists():
            columns = {
                "user_column": "who",
                "item_column": "what",
                "rating_column": "stars",
                "timestamp_column": "when",
            }
            run("train", ratings="my.csv", forward=False, **FAMILY, **columns)
            run("promote", **ANY)
            (world.folder / "trained").touch()
        yield run


pytestmark = pytest.mark.store


def lease_of(dead: float) -> lease.Pace:
    return REAL_PACE(beat=0.05, dead=dead, settle=0.02)


def champion_of(store) -> int:
    return int(store.client.get_registered_model("recsys").aliases["champion"])


def feedback(store, users: range, seed: int = 3) -> int:
    """Lists and ratings of further users, as a server would have written them; how many."""
    from registry import integrity

    state = transitions.read_state("recsys")
    random = np.random.default_rng(seed)
    pairs = [(user, item) for user in users for item in range(40) if (user * 7 + item * 3) % 4 < 2]
    ids = np.array([(f"u{user:03}", f"i{item:02}") for user, item in pairs], object)
    values = np.array([rating_of(user, item, random) for user, item in pairs])
    folder = store.home / "serving" / "recsys"
    folder.mkdir(parents=True, exist_ok=True)
    recommender = integrity.load_version(state.find(state.champion))
    now = time.time()
    given = given_of(ids[:, 0], ids[:, 1], values)
    write(folder / "feedback.db", given, recommender, random, since=now - 5000, until=now - 2000)
    return len(pairs)


def last(store, name="retrain"):
    run = store.run_named(name)
    return run, run.data.tags


def test_without_a_reason_nothing_is_trained_and_each_rule_says_why(world, step, capsys):
    before = world.contents()
    step("retrain", **ANY)
    said = capsys.readouterr().out
    assert "note: no server has kept feedback here" in said
    assert "no  drift: monitor has not looked at the champion yet" in said
    assert "no  new_ratings: 0 ratings are new, fewer than 0.05 of" in said
    assert "no  age: the champion was trained" in said
    run, tags = last(world)
    assert (run.info.status, tags["retrain.outcome"], tags["retrain.due"]) == ("FINISHED", "not due", "none")
    assert world.contents() == before


def test_feedback_is_learnt_from_once_and_the_better_version_promoted(world, step, capsys):
    given = feedback(world, range(80, 110))
    champion = champion_of(world)
    step("retrain", dry_run=True, **ANY)
    assert f"yes new_ratings: {given:,} ratings are new" in capsys.readouterr().out
    step("retrain", **ANY)
    said = capsys.readouterr().out
    assert f"the training goes on from version {champion}, with its choices" in said
    run, tags = last(world)
    assert run.info.status == "FINISHED"
    assert tags["retrain.outcome"] in ("promoted", "kept"), said
    assert run.data.metrics["feedback_ratings"] == given
    assert 0 < run.data.metrics["feedback_answering_lists"] <= given
    version = world.client.get_model_version("recsys", tags["version"])
    assert version.tags["retrained_from"] == version.tags["warm_start"] == str(champion)
    assert version.tags["family"] == FAMILY["family"]
    assert champion_of(world) == (int(tags["version"]) if tags["retrain.outcome"] == "promoted" else champion)
    assert version.tags["ratings"] == "my.csv"
    gathered = sorted((world.data / "retraining" / "recsys").glob("*.parquet"))[-1]
    table = pq.read_table(gathered)
    assert table["origin"].to_pylist().count("feedback") == given
    trained = datasets.load_dataset(version.tags["data_version"], world.data / "prepared")
    assert "u100" in set(trained.user_ids)

    # What was learnt from, or tried, is not new any more
    step("retrain", **ANY)
    assert "0 ratings are new" in capsys.readouterr().out
    assert last(world)[1]["retrain.outcome"] == "not due"


def test_an_alarm_of_the_monitor_is_a_reason_and_a_notice_is_none(world, step, capsys):
    champion, moment = champion_of(world), time.time()
    for harm, said in (("", "no  drift: monitor found no harm"), ("rating_level", "yes drift: monitor alarmed")):
        moment += 1  # a later look counts in place of an earlier one
        look = {"monitor.model": "recsys", "monitor.version": str(champion), "monitor.harm": harm}
        world.client.create_run("0", tags={**look, "monitor.until": f"{moment:.3f}"})
        step("retrain", dry_run=True, pause="0.001s", new_ratings="none", **ANY)
        assert said in capsys.readouterr().out
    assert last(world)[1]["retrain.outcome"] == "dry run"
    assert last(world)[1]["retrain.due"] == "drift"


def test_a_version_that_is_not_better_changes_nothing(world, step, capsys):
    champion, versions = champion_of(world), len(world.contents()[1])
    step("retrain", force=True, warm_start=False, min_gain=0.5, **ANY)
    said = capsys.readouterr().out
    assert "is not better" in said
    assert champion_of(world) == champion
    assert len(world.contents()[1]) == versions + 1
    assert last(world)[1]["retrain.outcome"] == "kept"


def test_a_retraining_that_fails_says_so_and_leaves_all_as_it_was(world, step, capsys):
    (world.home / "my.csv").rename(world.home / "gone.csv")
    before = world.contents()
    try:
        with pytest.raises(SystemExit):
            step("retrain", force=True, **ANY)
    finally:
        (world.home / "gone.csv").rename(world.home / "my.csv")
    assert "error: retrain: " in (said := capsys.readouterr().err)
    assert "my.csv: no such file" in said
    assert world.contents() == before
    run, tags = last(world)
    assert run.info.status == "FAILED"
    assert "retrain.outcome" not in tags


def test_ratings_on_another_scale_are_refused_and_nothing_is_trained(world, step, capsys):
    rows = [(*row[:2], 20 * row[2], row[3]) for row in sample(80)]
    write_csv(world.home / "hundred.csv", rows, "who,what,stars,when")
    before = world.contents()
    with pytest.raises(SystemExit):
        step("retrain", force=True, ratings="hundred.csv", **ANY)
    said = capsys.readouterr().err
    assert "hundred.csv: ratings are from 20 to 100, and those that the champion learnt from were from 1 to 5" in said
    assert world.contents() == before


def test_the_moment_from_which_on_feedback_counts_is_that_of_the_champion_where_none_is_given(world, step, capsys):
    feedback(world, range(110, 114))
    trained = world.client.get_model_version("recsys", str(champion_of(world))).run_id
    step("retrain", force=True, min_gain=0.5, **ANY)
    assert last(world)[0].data.metrics["feedback_ratings"] > 0
    before = last(world)[1]["retrain.origin"]
    step("retrain", force=True, min_gain=0.5, since="now", **ANY)
    assert last(world)[0].data.metrics["feedback_ratings"] == 0
    try:
        world.client.set_tag(trained, "retrain.origin", last(world)[1]["retrain.origin"])
        step("retrain", force=True, min_gain=0.5, **ANY)
        assert last(world)[0].data.metrics["feedback_ratings"] == 0
    finally:
        world.client.set_tag(trained, "retrain.origin", before)


def test_of_two_at_once_the_second_says_that_another_is_at_it(world, step, capsys, monkeypatch):
    monkeypatch.setattr("registry.lease.Pace", lambda: lease_of(600.0))  # however slowly the other one beats
    ended = threading.Event()

    def other() -> None:
        with lease.held("recsys", "another run", QUICK):
            ended.wait()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        while lease.read("recsys") is None:
            time.sleep(0.01)
        before = world.contents()
        step("retrain", force=True, **ANY)
        assert "another retraining of recsys is under way: run another run is at it" in capsys.readouterr().out
        assert world.contents() == before
    finally:
        ended.set()
        thread.join()
    assert lease.read("recsys") is None


def test_the_lease_of_one_that_was_killed_is_taken_over_and_its_run_shown_as_killed(world, step, capsys):
    killed = world.client.create_run("0", tags={"retrain.model": "recsys"}).info.run_id
    world.client.set_registered_model_tag("recsys", "retraining", json.dumps([killed, 4]))
    step("retrain", **ANY)
    assert f"note: run {killed}, which retrained before, gave no sign any more" in capsys.readouterr().out
    assert world.client.get_run(killed).info.status == "KILLED"
    assert last(world)[1]["retrain.outcome"] == "not due"
    assert lease.read("recsys") is None


def test_feedback_of_the_team_s_database_is_refused_with_a_password_on_the_command_line(world, step, capsys):
    with pytest.raises(SystemExit):
        step("retrain", database="mysql+pymysql://me:secret@host/recsys")
    said = capsys.readouterr().err
    assert "secret" not in said
    assert "RECSYS_FEEDBACK_DATABASE" in said


def test_a_model_of_ratings_is_not_weighed_by_propensities(world, step, capsys):
    before = world.contents()
    with pytest.raises(SystemExit):
        step("retrain", propensities=10, force=True, **ANY)
    assert "parameter 'propensities': takes are weighed by it, and version" in capsys.readouterr().err
    assert world.contents() == before
