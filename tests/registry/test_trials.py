"""Starts and ends of trials that race or die at any write, played out in one process."""

import json
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from recsys.errors import InputError
from recsys.experiments.plan import Plan
from registry import transitions, trials
from registry.policy import Decision
from registry.trial_state import CHALLENGER, TRIAL, Trial, read_trial
from registry.versions import find_or_raise_version
from tests.support.killed import KilledError

WRITES = (
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "transition_model_version_stage",
    "set_model_version_tag",
    "delete_model_version_tag",
    "update_model_version",
    "update_registered_model",
)
pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


@pytest.fixture
def champion_and_two(register):
    """Version 1 is in Production; 2 and 3 are others."""
    register(3)
    transitions.settle("recsys", lambda state: Decision(1, state.champion, "first"), "Anna")


def die():
    raise KilledError


def start(number=2, identity="one", share=0.1):
    def choose(state):
        return Decision(number, state.champion, f"version {number} is ahead")

    def make(decision, state):
        return Trial(identity, number, state.champion, share, transitions.now(), "Anna", 4.0, Plan())

    return trials.start("recsys", choose, make, "Anna")


def stands():
    """Champion, challenger by alias, by stage and by tag."""
    state = transitions.read_state("recsys")
    staging = [version.number for version in state.versions if version.stage == "Staging"]
    running = state.trial.version if state.trial else None
    return state.champion, state.production, state.challenger, staging, running


def at_rest(challenger=None, champion=1):
    return champion, [champion], challenger, [challenger] if challenger else [], challenger


def test_a_trial_stands_in_alias_stage_and_tag(champion_and_two):
    decision, trial = start()
    assert stands() == at_rest(2)
    assert (decision.winner, trial.share, trial.champion) == (2, 0.1, 1)
    assert "On trial since" in find_or_raise_version("recsys", 2).description


def test_starting_it_twice_leaves_the_first(champion_and_two):
    start(identity="one")
    assert start(identity="other")[1].id == "one"


def test_without_a_champion_the_version_is_promoted(register):
    register(1)
    assert start(1)[1] is None
    assert stands() == at_rest(champion=1)


def test_another_challenger_is_refused_while_one_is_on_trial(champion_and_two):
    start(2)
    with pytest.raises(InputError, match=r"version 2 of 'recsys' is on trial .*stop it"):
        start(3)
    assert stands() == at_rest(2)


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_start_that_dies_is_carried_through_or_has_not_begun(champion_and_two, at_write, moment):
    writes = at_write(moment, die, start)
    trials.tidy("recsys", "Ben")
    assert stands() == at_rest(2 if moment > 1 else None)
    assert writes == moment or writes < 6


@pytest.mark.parametrize("moment", range(1, 6))
def test_of_two_starts_at_once_one_is_left(champion_and_two, at_write, moment):
    told = []

    def other():
        try:
            start(3, "other")
        except InputError as error:
            told.append(str(error))

    def first():
        try:
            start(2, "one")
        except InputError as error:
            told.append(str(error))

    at_write(moment, other, first)
    left = transitions.read_state("recsys").trial.version
    assert stands() == at_rest(left)
    assert len(told) == 1


@pytest.mark.parametrize("outcome", ["rolled_back", "no_difference", "stopped", "promoted"])
@pytest.mark.parametrize("moment", [1, 2, 3, 4, 6, 8, 10, 99])
def test_an_end_that_dies_is_carried_through_or_has_not_begun(champion_and_two, at_write, outcome, moment):
    trial = start()[1]
    writes = at_write(moment, die, lambda: trials.end("recsys", trial, outcome, "so it was", "server"))
    before = read_trial(find_or_raise_version("recsys", 2)).outcome
    trials.tidy("recsys", "Ben")
    if not before:  # it died before the one write that counts: it is judged again
        assert stands() == at_rest(2)
        trials.end("recsys", trial, outcome, "so it was", "server")
    champion = 2 if outcome == "promoted" else 1
    assert stands() == at_rest(champion=champion)
    assert read_trial(find_or_raise_version("recsys", 2)).outcome == outcome
    assert writes <= 30
    if outcome == "promoted":
        assert find_or_raise_version("recsys", 2).tags["replaced"] == "1"


@pytest.mark.parametrize("moment", [1, 2, 3, 5, 8])
def test_two_judges_that_disagree_end_as_one_of_them_said(champion_and_two, at_write, moment):
    trial = start()[1]

    def broken():
        trials.end("recsys", trial, "rolled_back", "errors", "B")

    at_write(moment, broken, lambda: trials.end("recsys", trial, "promoted", "better", "A"))
    trials.tidy("recsys", "C")
    champion = transitions.read_state("recsys").champion
    assert stands() == at_rest(champion=champion)
    outcome = read_trial(find_or_raise_version("recsys", 2)).outcome
    assert (champion, outcome) in ((1, "rolled_back"), (2, "promoted"))


def test_a_challenger_deleted_in_the_middle_is_no_trial_and_leaves_nothing(champion_and_two):
    trial = start()[1]
    MlflowClient().delete_model_version("recsys", "2")
    assert transitions.read_state("recsys").trial is None
    assert trials.end("recsys", trial, "promoted", "late", "server") is None
    assert stands() == at_rest()


def test_another_champion_voids_the_trial(champion_and_two):
    start(2)
    transitions.settle("recsys", lambda state: Decision(3, state.champion, "by hand"), "Ben")
    trials.tidy("recsys", "server")
    assert stands() == at_rest(champion=3)
    assert read_trial(find_or_raise_version("recsys", 2)).outcome == "void"


def test_a_challenger_promoted_by_hand_ends_its_trial(champion_and_two):
    start(2)
    transitions.settle("recsys", lambda state: Decision(2, state.champion, "by hand"), "Ben")
    trials.tidy("recsys", "server")
    assert stands() == at_rest(champion=2)
    assert read_trial(find_or_raise_version("recsys", 2)).outcome == "promoted"


def test_a_promoted_challenger_can_be_rolled_back(champion_and_two):
    trial = start()[1]
    trials.end("recsys", trial, "promoted", "better", "server")
    transitions.roll_back("recsys", None, "Ben", lambda *_: None)
    trials.tidy("recsys", "server")
    assert stands() == at_rest(champion=1)


def test_extending_changes_the_limits_of_this_trial_only(champion_and_two):
    start()
    plan = trials.extend("recsys", 50_000, None).plan
    assert (plan.trial_users, plan.trial_days) == (50_000, 14.0)
    for fewer in ({"users": 49_999, "days": 15.0}, {"users": None, "days": 1.0}):
        with pytest.raises(InputError, match=r"extend needs at least the (50,000 users|14 days) that the trial of ver"):
            trials.extend("recsys", **fewer)
    assert transitions.read_state("recsys").trial.plan == plan
    trials.end("recsys", transitions.read_state("recsys").trial, "stopped", "", "Anna")
    assert start(identity="next")[1].plan.trial_users == 20_000
    trials.end("recsys", transitions.read_state("recsys").trial, "stopped", "", "Anna")
    with pytest.raises(InputError, match="no version of 'recsys' is on trial"):
        trials.extend("recsys", 1, None)


def test_an_alias_that_a_person_set_is_left_alone(champion_and_two):
    MlflowClient().set_registered_model_alias("recsys", CHALLENGER, "3")
    trials.tidy("recsys", "server")
    assert transitions.read_state("recsys").challenger == 3
    start(2)
    assert stands() == at_rest(2)


def test_a_tag_that_cannot_be_read_is_no_trial(champion_and_two):
    for text in ("{", "[]", json.dumps({"id": "x"}), json.dumps({"id": "x", "plan": {"unknown": 1}})):
        MlflowClient().set_model_version_tag("recsys", "2", TRIAL, text)
        assert transitions.read_state("recsys").trial is None


def test_a_trial_is_read_as_it_was_written(champion_and_two):
    trial = start(share=None)[1]
    assert replace(trial, plan=Plan()) == trial
    assert trial.mode == "in shadow mode"
