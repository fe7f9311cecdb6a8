"""A trial on a server as `serve` starts it: shown to its share of users, judged beside, and promoted by the server."""

import subprocess

import mlflow
import pytest
import requests

from recsys.experiments.assignment import CHALLENGER, arm_of
from recsys.experiments.plan import Plan
from registry import transitions, trials
from registry.policy import Decision
from registry.trial_state import Trial
from tests.support.pipeline import COLUMNS, PROJECT, new_store, step_command, write_sample
from tests.support.serving_step import started

pytestmark = pytest.mark.e2e
LISTS = 6  # of each user: enough to measure the champion's times, and to hold the challenger's against them


@pytest.fixture
def promoted(tmp_path):
    """A store with two versions, one in Production."""
    store = new_store(tmp_path / "store", tmp_path)
    write_sample(store.home / "my.csv")
    parameters = {"families": "bias,matrix_factorization", "beat_bias": False}
    command = step_command("main", folder=store.home, ratings="my.csv", **parameters, **COLUMNS)
    subprocess.run(command, cwd=PROJECT, env=store.environment(), check=True, capture_output=True)
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    return store


def test_the_server_shows_judges_and_promotes(promoted):
    champion = transitions.read_state("recsys").champion
    other = 3 - champion
    plan = Plan(trial_least=10, trial_gain=0.5)

    def make(decision, state):
        return Trial("one", other, champion, 0.5, transitions.now(), "Anna", 4.0, plan)

    with started(promoted, judge="0.5s") as serving:
        serving.wait_for(str(champion))
        trials.start("recsys", lambda state: Decision(other, state.champion, "ahead"), make, "Anna")
        users = [f"new {number}" for number in range(120)]
        of_challenger = [user for user in users if arm_of(user, "one", 0.5) == CHALLENGER]

        def version_of(user):
            answer = requests.get(f"{serving.address}/api/recommend/{user}?n=4", timeout=60)
            return answer.headers.get("x-recsys-version"), answer

        serving.wait(lambda: version_of(of_challenger[0])[0] == str(other), "the challenger")
        for number, user in enumerate(users):
            for _ in range(LISTS):
                _, answer = version_of(user)
            assert answer.headers["x-recsys-arm"] == arm_of(user, "one", 0.5)
            good = (user in of_challenger and number % 10) or number % 10 == 1
            events = [
                {"FeedbackType": "rating", "UserId": user, "ItemId": item, "Value": 5 if good else 1}
                for item in answer.json()
            ]
            requests.post(f"{serving.address}/api/feedback", json=events, timeout=60).raise_for_status()
        serving.wait_for(str(other))
        serving.wait(lambda: serving.json("api/trial").get("of") == "one", "the end on the record and on the page")
        page = serving.json("api/trial")
        assert (page["outcome"], page["trial"]) == ("promoted", None)
        assert page["interval"]["low"] > 0
        assert "recsys_trial_running" in requests.get(f"{serving.address}/metrics", timeout=60).text
    state = transitions.read_state("recsys")
    assert (state.champion, state.production, state.challenger) == (other, [other], None)
