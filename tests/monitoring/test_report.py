import json
import resource
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.monitoring import state
from recsys.monitoring.checks import CHECKS
from recsys.monitoring.measures import find
from recsys.monitoring.plots import report_plots
from recsys.serving.monitored import Monitored
from tests.support.served_traffic import DAY, INJECTIONS, write
from tests.support.served_world import report

SERVED_LATER = 3 * DAY


@pytest.fixture
def report_on(world, tmp_path):
    """Writes a window with ratings changed as given, and reports on it."""
    recommender, reference, given = world

    def report_on(inject=None, *, prepare=None, version="1", **changes):
        random = np.random.default_rng(3)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        write(
            path, inject(given, random) if inject else given, recommender, random, since=0, until=DAY, version=version
        )
        if prepare:
            with sqlite3.connect(path) as database:
                prepare(database)

        def load(number):
            if number != "1":
                raise InputError(f"version {number} is gone from the registry")
            return recommender

        return report(path, load, **{"reference": reference, **changes})

    return report_on


def test_a_window_in_which_nothing_changed_has_no_alarm_and_is_as_expected(report_on):
    report = report_on()
    assert report.alarms == []
    assert [one.name for one in report.findings if one.problem] == []
    rmse, auc = (find(report.measures, "version 1", name) for name in ("rmse", "auc"))
    assert rmse.low < rmse.expected < rmse.high
    assert auc.low < auc.expected < auc.high
    assert report.numbers["answering_events"] == 1
    assert report.numbers["policy_personal"] == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("name", INJECTIONS)
def test_an_injected_change_is_alarmed_within_one_window_and_named(report_on, name):
    inject, wanted = INJECTIONS[name]
    assert [one.name for one in report_on(inject).alarms] == [wanted]


def test_a_like_threshold_that_moved_is_named(report_on):
    assert [one.name for one in report_on(like_threshold=3.0).alarms] == ["like_threshold"]


def test_feedback_sent_twice_counts_once(report_on):
    once, twice = report_on(), report_on(INJECTIONS["feedback duplicated"][0])
    assert twice.numbers["ratings"] == once.numbers["ratings"]
    assert find(twice.measures, "version 1", "rmse").realised == find(once.measures, "version 1", "rmse").realised


def test_a_window_without_feedback_says_what_is_expected(report_on):
    report = report_on(prepare=lambda database: database.execute("delete from feedback"))
    assert report.alarms == []
    assert any("no feedback came" in note for note in report.notes)
    assert 0.5 < report.numbers["served_expected_auc"] < 1
    assert report.as_json()["numbers"]["events"] == 0
    assert all(report_plots(report).values())


def test_a_window_without_anything(report_on):
    report = report_on(since=SERVED_LATER, until=SERVED_LATER + DAY)
    assert report.numbers["lists"] == report.numbers["events"] == 0
    assert all(one.problem for one in report.findings)
    assert all(report_plots(report).values())


def test_of_a_champion_whose_data_is_gone_it_says_what_it_cannot_compare(report_on):
    report = report_on(reference=None)
    judged = {one.name for one in report.findings if not one.problem}
    assert judged == {"like_threshold", "duplicates", "clock"}
    assert any("is gone" in note for note in report.notes)
    assert find(report.measures, "version 1", "auc").rows > 0


def test_feedback_for_a_version_that_is_gone_is_told_and_the_rest_is_measured(report_on):
    report = report_on(version="7")
    assert any("by version 7 are not measured" in note and "gone" in note for note in report.notes)
    assert find(report.measures, "version 7", "rmse") is None
    assert find(report.measures, "version 7", "ndcg").rows > 0
    assert report.numbers["ratings"] > 0


def test_feedback_for_items_never_served_counts_for_the_champion(report_on):
    report = report_on(prepare=lambda database: database.execute("delete from served_blocks"))
    assert report.numbers["answering_events"] == 0
    assert find(report.measures, "version 1", "rmse").rows == report.numbers["ratings"]


def test_ratings_that_the_version_learnt_from_are_left_out(report_on, world):
    recommender, _, given = world
    seen = recommender.knowledge.seen[:300]
    ids = recommender.knowledge.user_ids[seen[:, 0]], recommender.knowledge.item_ids[seen[:, 1]]

    def with_learnt(given, random):
        return replace(
            given,
            users=np.concatenate((given.users, ids[0])),
            items=np.concatenate((given.items, ids[1])),
            ratings=np.concatenate((given.ratings, np.full(300, 5.0))),
            repeats=np.ones(len(given.users) + 300, int),
        )

    report = report_on(with_learnt)
    assert report.numbers["ratings"] == len(given.users)
    assert any("300 ratings are left out" in note for note in report.notes)


def test_what_is_written_beside_the_server_is_json_and_becomes_metrics(report_on, tmp_path):
    about = {"family": "table", "created": 1.0, "champion_since": None, "decisions": {"promoted": 2}}
    for _ in range(2):
        state.write_state(tmp_path, report_on(prepare=lambda d: d.execute("delete from feedback")), about)
    monitored = Monitored(tmp_path)
    assert len(monitored.content()["course"]) == 2
    samples = {(name, *labels.values()): value for name, _, labels, value in monitored.samples()}
    assert samples["recsys_decisions", "promoted"] == 2
    assert samples["recsys_drift_score", "clock"] == 0
    assert ("recsys_champion_since_timestamp_seconds", "1") not in samples
    assert all(np.isfinite(value) for value in samples.values())
    (tmp_path / "monitor.json").write_text(json.dumps({"about": []}))
    assert monitored.samples() == []
    (tmp_path / "monitor.json").write_text("{")
    assert monitored.samples() == []


def test_a_full_disk_leaves_what_the_server_shows_as_it_was(report_on, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    state.write_state(folder, report_on(), {"version": "1", "decisions": {}})
    before = Monitored(folder).content()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    later = report_on()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # stops every write as a full disk does
    try:
        with pytest.raises(OSError, match="too large"):
            state.write_state(folder, later, {"version": "1", "decisions": {}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Monitored(folder).content() == before
    assert [path.name for path in folder.iterdir()] == ["monitor.json"]


def test_every_check_says_a_sentence(report_on):
    findings = report_on().findings
    assert [one.name for one in findings] == [check.name for check in CHECKS]
    assert all(one.sentence and "{" not in one.sentence for one in findings)
