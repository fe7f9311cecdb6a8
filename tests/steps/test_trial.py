"""Trials as a person meets them: begun by promote, judged, stopped, extended, and told by history."""

import json
import re
import time
from contextlib import contextmanager

import mlflow
import numpy as np
import pytest

from recsys.experiments.plan import Plan
from registry import transitions, trials
from registry.policy import Decision
from registry.trial_state import Trial
from steps.support import trial_judge, trial_record
from steps.support.trial_judge import Judge
from steps.support.trial_parameters import JudgeParameters
from tests.support.pipeline import VERSION_TAGS, write_csv
from tests.support.trial_site import Site

ANY = {"max_rmse": 4, "beat_bias": False}
USERS = [f"u{number}" for number in range(1200)]


@pytest.fixture
def said(capsys):
    """What was printed since it was last asked."""
    return lambda: capsys.readouterr().out


@pytest.fixture
def folder(store):
    """The folder of the store's server."""
    return store.home / "serving" / "recsys"


@contextmanager
def site_of(folder):
    site = Site(folder, transitions.read_state("recsys").trial.id)
    yield site
    site.close()


@pytest.fixture
def on_trial(store, in_process):
    """Puts version 2, which holds nothing, on trial against version 1."""
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    store.client.create_registered_model("recsys")
    for _ in range(2):
        store.client.create_model_version("recsys", "s3://bucket/nothing", tags=VERSION_TAGS)
    transitions.settle("recsys", lambda state: Decision(1, state.champion, "first"), "Anna")

    def on_trial(identity="one", share=0.5, **plan):
        def make(decision, state):
            return Trial(identity, 2, 1, share, transitions.now(), "Anna", 4.0, Plan(**plan))

        return trials.start("recsys", lambda state: Decision(2, state.champion, "ahead"), make, "Anna")[1]

    return on_trial


class BesideServer:
    """Stands for the follower of a server."""

    def __init__(self):
        self.suspended, self.said = [], ("", 0)

    def suspend(self, trial):
        self.suspended.append(trial)

    def refusal(self, version):
        return self.said


@pytest.fixture
def server():
    return BesideServer()


def judge_of(folder, server=None):
    folder.mkdir(parents=True, exist_ok=True)
    return Judge("recsys", folder, JudgeParameters(), server)


def stands():
    state = transitions.read_state("recsys")
    return state.champion, state.production, state.challenger, state.trial.version if state.trial else None


def outcomes(store):
    return [record["outcome"] for record in trial_record.decision_record.find_decisions("recsys")]


def test_a_winner_is_put_on_trial_and_promoted_by_its_users(store, step, said, folder):
    random = np.random.default_rng(0)
    taste = random.choice([-1, 1], 40)[:, None] * random.choice([-1, 1], 30)[None, :]
    rows = [
        (f"u{user}", f"i{item}", float(np.clip(np.round(3 + 1.5 * taste[user, item] + random.normal(0, 0.5)), 1, 5)))
        for user in range(40)
        for item in random.choice(30, 22, replace=False)
    ]
    write_csv(store.home / "my.csv", rows)
    step("train", ratings="my.csv", family="bias")
    step("promote", trial=0.5, **ANY)  # nobody to compare with
    assert stands() == (1, [1], None, None)
    step("train", ratings="my.csv", family="matrix_factorization", embedding_size=4, batch_size=64, patience=50)
    served = Site(folder, "none yet")
    for user in range(40):
        served.show(f"u{user}", "champion", [f"i{item}" for item in range(8)], moment=time.time())
        served.give(f"u{user}", "i0", 5.0, received=time.time())
    served.close()
    said()
    step("trial", action="replay")
    told = re.search(
        r"version 2's .* to 40 users .*: likes a list ([-+.\d]+) to ([-+.\d]+) to the (\S+) .* (\d+)%", said()
    )
    low, high, shown, covered = map(float, told.groups())
    assert -1 <= low < high <= 8
    assert (shown, 0 < covered < 100) == (1.0, True)
    step("promote", trial=0.5, require_promotion=True, trial_gain=0.05, **ANY)
    assert "first it is on trial with 50% of the users, and version 1 stays in Production" in said()
    assert stands() == (1, [1], 2, 2)
    identity = transitions.read_state("recsys").trial.id
    step("promote", trial=0.2, **ANY)
    assert "version 2 is on trial with 50% of the users since 20" in said()
    assert transitions.read_state("recsys").trial.id == identity
    step("history")
    assert said().count("  begins, by ") == 1
    step("trial")
    assert "version 2 is on trial against version 1 with 50% of the users since 20" in said()

    with site_of(folder) as site:
        site.crowd(USERS[:150], 0.5, (0.5, 0.7), random)
        step("judge")
        assert "the trial goes on:" in said()
        site.crowd(USERS[150:], 0.5, (0.5, 0.7), random)
        step("judge")
    assert re.search(
        r"promoted: difference in like a user \+0\.\d+ \(\+0\.\d+ to \+0\.\d+\), surely above zero", said()
    )
    assert stands() == (2, [2], None, None)
    run = store.run_named("promote")
    assert store.artifacts(run) >= {"decision.json", "trial.json", "plots/sequence.png"}
    page = json.loads((folder / "trial.json").read_text())
    assert (page["outcome"], page["version"], len(page["course"])) == ("promoted", 2, 2)
    step("history")
    told = said()
    assert "version 2 won its trial against version 1: difference in like" in told
    assert re.search(r"begins, by .*: version 2 .* replaces version 1", told)
    step("rollback")
    assert stands() == (1, [1], None, None)


def test_a_broken_challenger_is_rolled_back_and_not_tried_again_unasked(store, on_trial, folder, step, said):
    on_trial()
    with site_of(folder) as site:
        site.crowd(USERS, 0.5, (0.5, 0.9), np.random.default_rng(1), errors=(0.0, 0.05))
    step("judge")
    assert "rolled back: guard errors: " in said()
    assert stands() == (1, [1], None, None)
    assert outcomes(store) == ["trial_rolled_back"]
    step("trial")
    assert re.search(r"before: version 2, 20.*, rolled back: guard errors", said())
    step("history")
    assert "the trial of version 2 is rolled back: guard errors" in said()
    on_trial("again")
    assert stands() == (1, [1], 2, 2)


def test_equal_versions_end_without_a_difference_and_may_be_given_more_users(store, on_trial, folder, step, said):
    on_trial(trial_users=1000)
    step("trial", action="extend", users=1100)
    assert "ends undecided after 1,100 users or 14 days" in said()
    random = np.random.default_rng(2)
    with site_of(folder) as site:
        site.crowd(USERS[:1050], 0.5, (0.5, 0.5), random)
        step("judge")
        assert "the trial goes on:" in said()
        site.crowd(USERS[1050:], 0.5, (0.5, 0.5), random)
    step("judge")
    assert "no difference: difference in like a user" in said()
    assert stands() == (1, [1], None, None)
    assert outcomes(store) == ["trial_no_difference"]


def test_a_trial_is_stopped_by_hand_and_nothing_is_left(store, on_trial, step, said):
    on_trial()
    step("trial", action="stop")
    assert "the trial of version 2 is stopped; version 1 stays in Production" in said()
    assert stands() == (1, [1], None, None)
    for action in ({"action": "stop"}, {"action": "extend", "days": 30}):
        with pytest.raises(SystemExit):
            step("trial", **action)
    assert outcomes(store) == ["trial_stopped"]


def test_a_judge_that_dies_before_it_has_recorded_the_end_leaves_that_to_the_next(store, on_trial, folder, monkeypatch):
    on_trial()
    with site_of(folder) as site:
        site.crowd(USERS, 0.5, (0.5, 0.5), np.random.default_rng(3), errors=(0.0, 0.05))
    with monkeypatch.context() as patched:
        patched.setattr(trial_record, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge_of(folder).look()
    assert stands() == (1, [1], None, None)
    assert judge_of(folder).look() is None
    assert outcomes(store) == []  # whoever ended it may be recording that now
    monkeypatch.setattr(trial_judge, "_GRACE_SECONDS", 0.0)
    for _ in range(2):
        assert judge_of(folder).look() is None
    assert outcomes(store) == ["trial_rolled_back"]


def test_a_deleted_challenger_ends_the_trial_on_the_record(store, on_trial, folder):
    on_trial()
    judging = judge_of(folder)
    assert judging.look().outcome is None
    store.client.delete_model_version("recsys", "2")
    assert judging.look() is None
    assert outcomes(store) == ["trial_void"]
    assert stands() == (1, [1], None, None)


def test_while_the_registry_is_away_a_broken_challenger_is_shown_to_nobody(
    store, on_trial, folder, server, monkeypatch
):
    trial = on_trial()
    judging = judge_of(folder, server)
    judging.look()
    with site_of(folder) as site:
        site.crowd(USERS, 0.5, (0.5, 0.5), np.random.default_rng(4), errors=(0.0, 0.05))

    def away(*_):
        raise ConnectionError("away")

    with monkeypatch.context() as patched:
        patched.setattr(trials, "tidy", away)
        with pytest.raises(ConnectionError):
            judging.look()
    assert server.suspended == [trial.id]
    assert stands() == (1, [1], 2, 2)
    assert judge_of(folder, server).look().outcome == "rolled_back"  # another process, which finds what was decided
    assert stands() == (1, [1], None, None)


def test_a_challenger_that_its_server_cannot_load_is_rolled_back_at_the_third_attempt(on_trial, folder, server):
    on_trial()
    judging = judge_of(folder, server)
    server.said = "version 2 is refused: InputError: damaged", 2
    assert judging.look().outcome is None
    server.said = server.said[0], 3
    assert judging.look().reason == "the challenger cannot answer: version 2 is refused: InputError: damaged"


def test_days_are_counted_by_the_judge_s_clock_from_when_it_heard_of_the_trial(on_trial, folder, monkeypatch):
    on_trial(trial_days=2)
    judging = judge_of(folder)
    judging.look()
    now = json.loads((folder / "trial.json").read_text())["seen"]
    monkeypatch.setattr("steps.support.trial_judge.time.time", lambda: now + 1.9 * 86_400)
    assert judge_of(folder).look().outcome is None
    monkeypatch.setattr("steps.support.trial_judge.time.time", lambda: now + 2.1 * 86_400)
    assert judge_of(folder).look().outcome == "no_difference"


def test_without_a_server_s_folder_there_is_nothing_to_judge_by(on_trial, step, capsys):
    on_trial()
    with pytest.raises(SystemExit):
        step("judge")
    assert "record and feedback of a server are expected here" in capsys.readouterr().err
