"""A version on trial on a real server of two workers: who is shown what, what is recorded, and what nobody sees."""

import json
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
import requests

from recsys.experiments.assignment import arm_of
from tests.support.serving_site import Server, form
from tests.support.waiting import wait

pytestmark = pytest.mark.process
USERS = [f"u{number}" for number in range(24)] + [f"stranger {number}" for number in range(6)]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Makes a server whose champion is version 1, with version 2 on trial as said; `broken` is how 2 is broken."""
    running = []

    def site(share=0.5, broken=None, challenger=True):
        monkeypatch.setenv("RECSYS_TEST_BROKEN", json.dumps({"2": broken or {}}))
        path = Path(__file__).parents[1] / "support" / "broken_versions"
        server = Server(tmp_path / "serving", paths=[path])
        one, two = form(tmp_path / "one"), form(tmp_path / "two", "2", liked=0.7)
        trial = {"id": "trial-1", "share": share, "version": "2"}
        if challenger:
            trial["form"] = f"../{two.name}"
        server.point_at(one, trial=trial)
        running.append(server)
        return server.start()

    yield site
    for server in running:
        server.stop()


def ask(server, user, path=""):
    return requests.get(f"{server.address}/api/recommend/{user}{path}", headers={"Connection": "close"}, timeout=120)


def record(server, columns, count):
    def rows():
        with sqlite3.connect(server.folder / "feedback.db") as database:
            return database.execute(f"select {columns} from served order by id").fetchall()

    wait(lambda: len(rows()) >= count, f"{count} rows of the record")
    return rows()


def test_a_user_stays_in_the_arm_that_the_hash_says_over_workers_and_restarts(site):
    server = site()
    seen = defaultdict(set)
    for round_ in range(4):
        for user in USERS:
            answer = ask(server, user)
            arm = answer.headers["x-recsys-arm"]
            assert answer.headers["x-recsys-version"] == ("2" if arm == "challenger" else "1")
            seen[user].add(arm)
        if round_ == 1:
            server.stop()
            server.start()
    assert seen == {user: {arm_of(user, "trial-1", 0.5)} for user in USERS}
    rows = record(server, "user, arm, version, trial, failed, seconds > 0", 4 * len(USERS))
    assert {(user, arm) for user, arm, *_ in rows} == {(user, arm_of(user, "trial-1", 0.5)) for user in USERS}
    assert {tuple(rest) for _, _, _, *rest in rows} == {("trial-1", 0, 1)}
    metrics = server.get("metrics").text
    assert 'recsys_lists_total{arm="challenger",policy="personal",version="2"}' in metrics
    assert 'recsys_requests_total{arm="challenger",route="recommend"' in metrics


def test_where_the_challenger_fails_its_users_get_the_champion_s_list_and_stay_in_the_arm(site):
    server = site(broken={"errors": 1.0})
    for user in USERS:
        answer = ask(server, user)
        assert answer.status_code == 200
        assert answer.headers["x-recsys-arm"] == arm_of(user, "trial-1", 0.5)
        assert answer.headers["x-recsys-version"] == "1"
    for _, arm, failed in record(server, "user, arm, failed", len(USERS)):
        assert failed == (arm == "challenger")
    assert "recsys_trial_failures_total" in server.get("metrics").text


def test_a_challenger_that_cannot_be_opened_counts_as_failing(site):
    server = site(challenger=False)
    for user in USERS:
        assert ask(server, user).headers["x-recsys-version"] == "1"
    assert {(arm, failed) for arm, failed in record(server, "arm, failed", len(USERS))} == {
        ("champion", 0),
        ("challenger", 1),
    }


def test_in_shadow_mode_nobody_sees_the_challenger_and_the_record_holds_both(site):
    server = site(share=None)
    for user in USERS:
        answer = ask(server, user)
        assert (answer.headers["x-recsys-arm"], answer.headers["x-recsys-version"]) == ("champion", "1")
    rows = record(server, "arm, beside, items, policy", len(USERS))
    for arm, beside, items, policy in rows:
        other = json.loads(beside)
        assert (arm, other["version"], other["failed"]) == ("champion", "2", False)
        assert other["policy"] == policy
        assert len(other["items"]) == len(json.loads(items))
        assert other["seconds"] > 0


def test_in_shadow_mode_a_failing_challenger_disturbs_nobody(site):
    server = site(share=None, broken={"errors": 1.0})
    assert all(ask(server, user).status_code == 200 for user in USERS)
    assert all(json.loads(beside)["failed"] for (beside,) in record(server, "beside", len(USERS)))


def test_a_trial_ends_between_two_requests_and_a_suspended_one_is_shown_to_nobody(site, tmp_path):
    server = site()
    shown = [user for user in USERS if arm_of(user, "trial-1", 0.5) == "challenger"]
    assert ask(server, shown[0]).headers["x-recsys-version"] == "2"
    trial = {"id": "trial-1", "share": 0.5, "version": "2", "form": "../two", "suspended": True}
    for state in (trial, None):
        server.point_at(tmp_path / "one", trial=state)

        def is_over():
            return all(ask(server, shown[0]).headers["x-recsys-version"] == "1" for _ in range(8))

        wait(is_over, "the end of the trial on both workers")
